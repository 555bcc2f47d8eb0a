"""The Vagrantfile is read by Ruby itself, and asks for what it says. It has never been run: no test machine has KVM."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

# A stand-in for Vagrant that writes down what a Vagrantfile asks for.
RECORDER = """
require 'json'
class Recorder
  attr_reader :calls
  def initialize; @calls = {}; end
  def method_missing(name, *arguments, **options, &block)
    inner = nil
    if block
      inner = Recorder.new
      block.call(inner)
    elsif arguments.empty?
      return @calls[name] ||= Recorder.new
    end
    (@calls[name.to_s.chomp('=')] ||= []) << [arguments, options, inner]
  end
  def to_json(*a) = @calls.to_json(*a)
end
module Vagrant
  def self.configure(version)
    config = Recorder.new
    yield config
    puts({version: version, config: config}.to_json)
  end
end
load ARGV[0]
"""


def _read(vagrantfile: Path) -> dict[str, Any]:
    done = subprocess.run(["ruby", "-e", RECORDER, str(vagrantfile)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_ruby_accepts_it(root: Path) -> None:
    done = subprocess.run(["ruby", "-c", "Vagrantfile"], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "Syntax OK", done.stderr


def test_ruby_refuses_a_damaged_one(root: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "Vagrantfile"
    damaged.write_text(
        (root / "Vagrantfile").read_text(encoding="utf-8").rstrip().removesuffix("end"), encoding="utf-8"
    )
    assert subprocess.run(["ruby", "-c", str(damaged)], capture_output=True, check=False).returncode != 0


def test_it_asks_for_debian_13_with_nested_kvm_and_runs_the_tests(root: Path) -> None:
    asked = _read(root / "Vagrantfile")
    assert asked["version"] == "2"
    config = asked["config"]
    assert config["vm"]["box"] == [[["debian/trixie64"], {}, None]]
    ((name, _, libvirt),) = config["vm"]["provider"]
    assert name == ["libvirt"]
    assert libvirt["driver"] == [[["kvm"], {}, None]]
    assert libvirt["nested"] == [[[True], {}, None]]
    provisions = {arguments[0]: options for arguments, options, _ in config["vm"]["provision"]}
    assert "make setup" in provisions["setup"]["inline"]
    assert "make test" in provisions["test"]["inline"]
    assert provisions["test"]["run"] == "never"

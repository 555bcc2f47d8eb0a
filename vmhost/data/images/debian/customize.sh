#!/bin/sh
# Runs inside the new system as its root, once all packages are installed.
set -eu

# Nothing that a guest is known by may be shared by the guests of one image.
: >/etc/machine-id
rm -f /var/lib/dbus/machine-id /etc/ssh/ssh_host_*
passwd --quiet --lock root

echo LANG=C.UTF-8 >/etc/default/locale

# cloud-init imports every module that it may run, in each of its four stages. These are for other distributions and clouds.
python3 - <<'END' >/etc/cloud/cloud.cfg.d/96_modules.cfg
import json
import yaml

UNUSED = {
    "byobu", "disable-ec2-metadata", "fan", "grub-dpkg", "keys-to-console", "landscape", "lxd", "mcollective",
    "refresh_rmc_and_interface", "reset_rmc", "rightscale_userdata", "snap", "spacewalk", "ssh-authkey-fingerprints",
    "ubuntu-advantage", "ubuntu_advantage", "ubuntu-autoinstall", "ubuntu_autoinstall", "ubuntu-drivers", "ubuntu_drivers",
    "ubuntu_pro", "yum-add-repo", "yum_add_repo", "zypper-add-repo", "zypper_add_repo",
    "disable_ec2_metadata", "grub_dpkg", "keys_to_console", "ssh_authkey_fingerprints",
}
with open("/etc/cloud/cloud.cfg", encoding="utf-8") as file:
    config = yaml.safe_load(file)
for stage in ("cloud_init_modules", "cloud_config_modules", "cloud_final_modules"):
    print(f"{stage}: {json.dumps([module for module in config[stage] if str(module) not in UNUSED])}")
END

# Every Python module is compiled now, not at the first boot of each guest.
python3 -m compileall -q -j0 /usr/lib/python3 /usr/lib/python3.[0-9]* >/dev/null

# Work that costs a young guest seconds and that nobody waits for.
systemctl --quiet mask e2scrub_reap.service
systemctl --quiet disable e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer

# BIOS: GRUB's second stage, put into the BIOS boot partition when the disk is assembled. UEFI: the signed loaders at the
# path that every firmware tries. grub-cloud-amd64 keeps both up to date in a guest when its flag is there.
install -d /boot/grub/i386-pc
cp /usr/lib/grub/i386-pc/*.mod /usr/lib/grub/i386-pc/*.lst /usr/lib/grub/i386-pc/boot.img /boot/grub/i386-pc/
grub-mkimage --format=i386-pc --prefix='(,gpt1)/boot/grub' --output=/boot/grub/i386-pc/core.img \
    biosdisk part_gpt ext2 normal configfile linux serial terminal
install -D -m 644 /usr/lib/shim/shimx64.efi.signed /boot/efi/EFI/BOOT/BOOTX64.EFI
install -D -m 644 /usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed /boot/efi/EFI/BOOT/grubx64.efi
touch /etc/grub.d/enable_cloud

"""Images: built from Debian's mirrors, pulled from distributions, inspected before QEMU sees any."""

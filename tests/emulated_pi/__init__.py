"""Tests on Raspberry Pis that QEMU emulates; the first run fetches their system into the cache."""

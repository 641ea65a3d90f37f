"""Phones: real ones through adb or the app, arm64 cores under emulation, and estimates of others."""

"""The Android app's side: its bundle, the tools to build it here, its APK."""

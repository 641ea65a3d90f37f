package android.app

class ActivityManager {
    class MemoryInfo {
        @JvmField var totalMem = 0L
    }

    fun getMemoryInfo(into: MemoryInfo) {
        into.totalMem = 8_000_000_000
    }
}

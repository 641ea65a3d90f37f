// As much of Android as the app's session touches, so that it runs on a JVM (test_session.py). Not Android:
// what these do is what its documentation says.
package android.os

import java.util.concurrent.LinkedBlockingQueue

class Looper private constructor() {
    /** What was posted and not yet run: the test runs it, and so is the main thread. */
    val posted = LinkedBlockingQueue<Runnable>()

    companion object {
        private val main = Looper()

        @JvmStatic
        fun getMainLooper() = main
    }
}

class Handler(private val looper: Looper) {
    fun post(action: Runnable): Boolean = looper.posted.add(action)
}

class Build {
    class VERSION {
        companion object {
            @JvmField val RELEASE = "14"

            @JvmField val SDK_INT = 34
        }
    }

    companion object {
        const val UNKNOWN = "unknown"

        @JvmField val MANUFACTURER = "Maker"

        @JvmField val MODEL = "Téléphone 1" // not ASCII, as the document wants it

        @JvmField val SOC_MODEL = "Chip 9"

        @JvmField val HARDWARE = "board"

        @JvmField val FINGERPRINT = "maker/model"

        @JvmField val SUPPORTED_64_BIT_ABIS = arrayOf("arm64-v8a")

        @JvmField val SUPPORTED_32_BIT_ABIS = arrayOf("armeabi-v7a")
    }
}

class Process {
    companion object {
        @JvmStatic
        fun is64Bit() = true
    }
}

class Debug {
    companion object {
        /** KiB. */
        @JvmStatic
        fun getPss() = 123_456L
    }
}

class BatteryManager {
    companion object {
        const val EXTRA_LEVEL = "level"
        const val EXTRA_SCALE = "scale"
        const val EXTRA_TEMPERATURE = "temperature"
        const val EXTRA_PLUGGED = "plugged"
    }
}

class PowerManager {
    fun getCurrentThermalStatus() = 1
}

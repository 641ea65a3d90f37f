package android.content

import android.app.ActivityManager
import android.content.pm.PackageManager
import android.content.res.AssetManager
import android.net.Uri
import android.os.PowerManager
import java.io.File
import java.io.InputStream
import java.io.OutputStream

class BroadcastReceiver

class IntentFilter(@Suppress("UNUSED_PARAMETER") action: String)

/** The battery's broadcast: 31.5 degrees, 80 %, plugged in. */
class Intent {
    fun getIntExtra(name: String, @Suppress("UNUSED_PARAMETER") otherwise: Int): Int =
        mapOf("temperature" to 315, "level" to 40, "scale" to 50, "plugged" to 1).getValue(name)

    companion object {
        const val ACTION_BATTERY_CHANGED = "battery"
    }
}

/** An installed app: its own folder, and its APK's assets in another. */
class Context(private val folder: File, assetFolder: File) {
    private val preferences = HashMap<String, SharedPreferences>()
    val assets = AssetManager(assetFolder)
    val applicationContext: Context get() = this
    val filesDir: File get() = folder
    val contentResolver = ContentResolver()
    val packageName = "dev.stillroom.demo"
    val packageManager = PackageManager()

    fun getSharedPreferences(name: String, @Suppress("UNUSED_PARAMETER") mode: Int): SharedPreferences =
        preferences.getOrPut(name) { Remembered() }

    fun getSystemService(name: String): Any = if (name == POWER_SERVICE) PowerManager() else ActivityManager()

    @Suppress("UNUSED_PARAMETER")
    fun registerReceiver(receiver: BroadcastReceiver?, filter: IntentFilter): Intent? = Intent()

    companion object {
        const val MODE_PRIVATE = 0
        const val ACTIVITY_SERVICE = "activity"
        const val POWER_SERVICE = "power"
    }
}

class ContentResolver {
    fun openInputStream(address: Uri): InputStream? = File(address.path).inputStream()

    fun openOutputStream(address: Uri, mode: String): OutputStream? {
        require(mode == "wt")
        return File(address.path).outputStream()
    }
}

interface SharedPreferences {
    fun getString(key: String, otherwise: String?): String?
    fun getBoolean(key: String, otherwise: Boolean): Boolean
    fun getInt(key: String, otherwise: Int): Int
    fun getLong(key: String, otherwise: Long): Long
    fun edit(): Editor

    interface Editor {
        fun putString(key: String, value: String?): Editor
        fun putBoolean(key: String, value: Boolean): Editor
        fun putInt(key: String, value: Int): Editor
        fun putLong(key: String, value: Long): Editor
        fun apply()
    }
}

private class Remembered : SharedPreferences {
    private val values = HashMap<String, Any?>()

    override fun getString(key: String, otherwise: String?) = (values[key] ?: otherwise) as String?
    override fun getBoolean(key: String, otherwise: Boolean) = (values[key] ?: otherwise) as Boolean
    override fun getInt(key: String, otherwise: Int) = (values[key] ?: otherwise) as Int
    override fun getLong(key: String, otherwise: Long) = (values[key] ?: otherwise) as Long

    override fun edit() = object : SharedPreferences.Editor {
        private val changes = HashMap<String, Any?>()

        override fun putString(key: String, value: String?) = apply { changes[key] = value }
        override fun putBoolean(key: String, value: Boolean) = apply { changes[key] = value }
        override fun putInt(key: String, value: Int) = apply { changes[key] = value }
        override fun putLong(key: String, value: Long) = apply { changes[key] = value }
        override fun apply() = values.putAll(changes)
    }
}

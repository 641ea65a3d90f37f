package dev.stillroom.ui

import android.app.ActivityManager
import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.os.BatteryManager
import android.os.Build
import android.os.Debug
import android.os.PowerManager
import android.os.Process
import dev.stillroom.bench.Conditions
import dev.stillroom.bench.DeviceFacts

// What Android alone knows. Nothing here tells one device from another of its model.

/** The device and its Android. */
internal fun deviceFacts(context: Context): DeviceFacts {
    val memory = ActivityManager.MemoryInfo()
    (context.getSystemService(Context.ACTIVITY_SERVICE) as ActivityManager).getMemoryInfo(memory)
    return DeviceFacts(
        manufacturer = Build.MANUFACTURER,
        model = Build.MODEL,
        soc = socModel(),
        emulator = Build.HARDWARE in EMULATORS || Build.FINGERPRINT.startsWith("generic"),
        androidRelease = Build.VERSION.RELEASE,
        androidSdk = Build.VERSION.SDK_INT,
        abi = (if (Process.is64Bit()) Build.SUPPORTED_64_BIT_ABIS else Build.SUPPORTED_32_BIT_ABIS).first(),
        cores = Runtime.getRuntime().availableProcessors(),
        ramBytes = memory.totalMem,
    )
}

/** Heat and battery at this moment. */
internal fun conditions(context: Context): Conditions {
    val battery = battery(context)
    val level = battery?.getIntExtra(BatteryManager.EXTRA_LEVEL, -1) ?: -1
    val scale = battery?.getIntExtra(BatteryManager.EXTRA_SCALE, -1) ?: -1
    val tenths = battery?.getIntExtra(BatteryManager.EXTRA_TEMPERATURE, Int.MIN_VALUE) ?: Int.MIN_VALUE
    return Conditions(
        thermalStatus = thermalStatus(context),
        batteryCelsius = if (tenths == Int.MIN_VALUE) null else tenths / 10.0,
        batteryPercent = if (level < 0 || scale <= 0) null else level * 100.0 / scale,
    )
}

/** Whether a cable or a pad feeds the device. */
internal fun charging(context: Context): Boolean =
    (battery(context)?.getIntExtra(BatteryManager.EXTRA_PLUGGED, 0) ?: 0) != 0

/** Proportional set size of this process in bytes. Takes some milliseconds. */
internal fun pssBytes(): Long = Debug.getPss() * 1024

/** The last broadcast about the battery, which is kept for those who come later. */
private fun battery(context: Context): Intent? =
    context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED))

/** PowerManager.getCurrentThermalStatus(), which exists from API 29; null before. */
private fun thermalStatus(context: Context): Int? = orNull {
    val power = context.getSystemService(Context.POWER_SERVICE) as PowerManager
    PowerManager::class.java.getMethod("getCurrentThermalStatus").invoke(power) as Int
}

/** Build.SOC_MODEL, which exists from API 31; null before, and where the maker has not set it. */
private fun socModel(): String? = orNull {
    (Build::class.java.getField("SOC_MODEL").get(null) as String).takeIf { it != Build.UNKNOWN }
}

private inline fun <T> orNull(read: () -> T): T? = try {
    read()
} catch (older: ReflectiveOperationException) {
    null
}

private val EMULATORS = setOf("goldfish", "ranchu", "cutf_cvm")

package dev.stillroom.ui

import android.content.Context
import dev.stillroom.model.Bundle
import dev.stillroom.model.BundleFiles
import dev.stillroom.model.GoldenReport
import dev.stillroom.model.Limits
import dev.stillroom.model.runtime
import dev.stillroom.model.sha256
import java.nio.ByteBuffer

/**
 * Remembers how a bundle's golden vectors were answered: they are replayed once, and not at every start.
 *
 * Another bundle, or the same one under another version of the runtime or of Android, is replayed anew.
 */
internal class GoldenMemory(context: Context) {
    private val preferences = context.getSharedPreferences("golden", Context.MODE_PRIVATE)

    /** What was found before, or null. */
    fun recall(bundle: Bundle): GoldenReport? {
        if (preferences.getString(KEY, null) != keyOf(bundle)) return null
        return GoldenReport(
            preferences.getInt(COUNT, 0),
            Double.fromBits(preferences.getLong(ERROR, 0)),
            Double.fromBits(preferences.getLong(ALLOWED, 0)),
            preferences.getString(DIFFERENCE, null),
        )
    }

    fun remember(bundle: Bundle, report: GoldenReport) {
        preferences.edit()
            .putString(KEY, keyOf(bundle))
            .putInt(COUNT, report.count)
            .putLong(ERROR, report.maxAbsError.toBits())
            .putLong(ALLOWED, report.allowed.toBits())
            .putString(DIFFERENCE, report.firstDifference)
            .apply()
    }

    /** The manifest lists the checksum of every other file, so its own stands for the bundle. */
    private fun keyOf(bundle: Bundle): String {
        val manifest = bundle.source.read(BundleFiles.MANIFEST, Limits.MANIFEST_BYTES)
        val android = android.os.Build.VERSION.SDK_INT
        return "${sha256(ByteBuffer.wrap(manifest))} ${runtime.name} ${runtime.version} $android"
    }

    private companion object {
        const val KEY = "key"
        const val COUNT = "count"
        const val ERROR = "max_abs_error"
        const val ALLOWED = "allowed"
        const val DIFFERENCE = "first_difference"
    }
}

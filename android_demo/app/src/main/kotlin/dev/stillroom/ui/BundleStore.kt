package dev.stillroom.ui

import android.content.Context
import android.net.Uri
import dev.stillroom.model.BundleError
import dev.stillroom.model.BundleFiles
import dev.stillroom.model.BundleSource
import dev.stillroom.model.FolderSource
import dev.stillroom.model.Limits
import dev.stillroom.model.copyBundle
import dev.stillroom.model.runtime
import dev.stillroom.model.unpackBundle
import java.io.File

/** Which bundle is in use: the one among the app's assets, or one that was picked. */
internal class BundleStore(private val context: Context) {
    private val preferences = context.getSharedPreferences("bundle", Context.MODE_PRIVATE)
    private val pickedFolder = File(context.filesDir, "picked")

    /** Whether the bundle in use was picked from storage. */
    var picked: Boolean
        get() = preferences.getBoolean(PICKED, false)
        private set(value) = preferences.edit().putBoolean(PICKED, value).apply()

    /** The bundle in use. Throws [BundleError]. Call it off the main thread, as the two below. */
    fun source(): BundleSource = if (picked) FolderSource(pickedFolder) else builtIn()

    /** Unpack a picked .zip and use it, once [check] has let it pass. Throws [BundleError]. */
    fun pick(zip: Uri, check: (BundleSource) -> Unit) {
        val input = context.contentResolver.openInputStream(zip)
            ?: throw BundleError.Missing("$zip cannot be read: pick the file again")
        input.use { unpackBundle(it, pickedFolder, check = check) }
        picked = true
    }

    /** Use the app's own bundle, and delete the other. */
    fun useBuiltIn() {
        picked = false
        pickedFolder.listFiles()?.forEach { it.delete() }
    }

    /** Assets have no path: where the runtime wants one, they are copied once for every new bundle. */
    private fun builtIn(): BundleSource {
        val assets = AssetSource(context.assets, "bundle")
        if (!runtime.needsPath) return assets
        val folder = File(context.filesDir, "copied")
        val copied = FolderSource(folder)
        val same = manifest(assets).contentEquals(manifestOrNull(copied))
        return if (same) copied else copyBundle(assets, folder)
    }

    private fun manifest(source: BundleSource) = source.read(BundleFiles.MANIFEST, Limits.MANIFEST_BYTES)

    private fun manifestOrNull(source: BundleSource): ByteArray? = try {
        manifest(source)
    } catch (missing: BundleError) {
        null
    }

    private companion object {
        const val PICKED = "picked"
    }
}

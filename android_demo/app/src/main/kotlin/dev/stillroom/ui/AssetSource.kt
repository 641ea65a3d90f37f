package dev.stillroom.ui

import android.content.res.AssetManager
import dev.stillroom.model.BundleError
import dev.stillroom.model.BundleFiles
import dev.stillroom.model.BundleSource
import java.io.FileInputStream
import java.io.IOException
import java.io.InputStream
import java.nio.ByteBuffer
import java.nio.channels.FileChannel

/**
 * A bundle among the app's assets, in [folder].
 *
 * The model is stored uncompressed (noCompress in build.gradle.kts), so it is mapped where it is in the APK.
 * The small files may be compressed; those are read, up to [SMALL_BYTES].
 */
internal class AssetSource(private val assets: AssetManager, private val folder: String) : BundleSource {
    override fun sizeBytes(file: String): Long = try {
        assets.openFd(checked(file)).use { it.length }
    } catch (compressed: IOException) {
        open(file).use { it.available().toLong() } // of an asset: all that is left of it, uncompressed
    }

    override fun read(file: String, maxBytes: Int): ByteArray {
        val sizeBytes = sizeBytes(file)
        if (sizeBytes > maxBytes) {
            throw BundleError.TooLarge("$file is $sizeBytes bytes, at most $maxBytes are read: $NEXT_STEP")
        }
        val bytes = ByteArray(sizeBytes.toInt())
        open(file).use { input ->
            var at = 0
            while (at < bytes.size) {
                val count = input.read(bytes, at, bytes.size - at)
                if (count < 0) throw BundleError.Missing("$file ends at $at of $sizeBytes bytes: $NEXT_STEP")
                at += count
            }
        }
        return bytes
    }

    override fun map(file: String): ByteBuffer {
        val descriptor = try {
            assets.openFd(checked(file))
        } catch (compressed: IOException) {
            val bytes = read(file, SMALL_BYTES)
            return ByteBuffer.allocateDirect(bytes.size).put(bytes).apply { flip() }.asReadOnlyBuffer()
        }
        return descriptor.use {
            if (it.length > Int.MAX_VALUE) {
                throw BundleError.TooLarge("$file is ${it.length} bytes, at most 2 GiB: use another model")
            }
            val apk = FileInputStream(it.fileDescriptor).channel
            apk.map(FileChannel.MapMode.READ_ONLY, it.startOffset, it.length)
        }
    }

    override fun path(file: String): String? = null

    private fun open(file: String): InputStream = try {
        assets.open(checked(file))
    } catch (error: IOException) {
        throw BundleError.Missing("there is no file $file among the app's assets: $NEXT_STEP", error)
    }

    private fun checked(file: String) = "$folder/${BundleFiles.check(file)}"

    private companion object {
        const val SMALL_BYTES = 16 shl 20
        const val NEXT_STEP = "put the bundle into the app again"
    }
}

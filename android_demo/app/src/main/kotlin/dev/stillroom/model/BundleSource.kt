package dev.stillroom.model

import java.io.File
import java.io.FileInputStream
import java.io.IOException
import java.io.RandomAccessFile
import java.nio.ByteBuffer
import java.nio.channels.FileChannel

/**
 * Where a bundle's files lie: a folder, or the APK's assets. Every function throws [BundleError.Missing] when
 * there is no such file, and [BundleError.PathEscape] for a name that is not a plain one.
 */
interface BundleSource {
    /** Size of a file in bytes. */
    fun sizeBytes(file: String): Long

    /**
     * A whole small file. Throws [BundleError.TooLarge] when it is over [maxBytes]; nothing is allocated
     * then.
     */
    fun read(file: String, maxBytes: Int): ByteArray

    /**
     * A file as read-only memory map: nothing of it is on the heap. Throws [BundleError.TooLarge] from 2 GiB
     * on, which is what one buffer can address.
     */
    fun map(file: String): ByteBuffer

    /** The path of a file, or null where it has none (an asset within an APK). */
    fun path(file: String): String?
}

/** A bundle in a folder: picked from storage and unpacked by [unpackBundle], or a test's. */
class FolderSource(folder: File) : BundleSource {
    private val root: File = folder.absoluteFile

    override fun sizeBytes(file: String): Long = fileOf(file).length()

    override fun read(file: String, maxBytes: Int): ByteArray = opened(file) {
        FileInputStream(it).use { input ->
            val sizeBytes = input.channel.size()
            if (sizeBytes > maxBytes) {
                throw BundleError.TooLarge(
                    "$file is $sizeBytes bytes, at most $maxBytes are read: $MAKE_AGAIN",
                )
            }
            val bytes = ByteArray(sizeBytes.toInt())
            var at = 0
            while (at < bytes.size) {
                val count = input.read(bytes, at, bytes.size - at)
                if (count < 0) throw IOException("it became shorter while it was read")
                at += count
            }
            bytes
        }
    }

    override fun map(file: String): ByteBuffer = opened(file) {
        RandomAccessFile(it, "r").use { input ->
            val sizeBytes = input.length()
            if (sizeBytes > Int.MAX_VALUE) {
                throw BundleError.TooLarge(
                    "$file is $sizeBytes bytes, one memory map holds 2 GiB: use a smaller model",
                )
            }
            input.channel.map(FileChannel.MapMode.READ_ONLY, 0, sizeBytes)
        }
    }

    override fun path(file: String): String = fileOf(file).path

    private inline fun <T> opened(file: String, read: (File) -> T): T = try {
        read(fileOf(file))
    } catch (error: IOException) {
        throw BundleError.Missing("$file cannot be read, ${error.message}: $MAKE_AGAIN", error)
    }

    /** The file of a plain name, if it lies in this folder after links are followed. */
    private fun fileOf(name: String): File {
        val file = File(root, BundleFiles.check(name))
        val real = try {
            if (file.canonicalFile.parentFile != root.canonicalFile) {
                throw BundleError.PathEscape(
                    "$name is a link out of the bundle's folder: do not use this bundle",
                )
            }
            file.isFile
        } catch (error: IOException) { // a loop of links
            throw BundleError.Missing("$name cannot be read, ${error.message}: $MAKE_AGAIN", error)
        }
        if (!real) throw BundleError.Missing("there is no file $name in the bundle: $MAKE_AGAIN")
        return file
    }

    /** Throw [BundleError.PathEscape] when there is anything else in the folder than plain files. */
    fun checkFlat() {
        for (entry in root.listFiles().orEmpty()) {
            if (!entry.isFile) {
                throw BundleError.PathEscape(
                    "${shown(entry.name)} is no plain file, a bundle has no folders: $MAKE_AGAIN",
                )
            }
        }
    }
}

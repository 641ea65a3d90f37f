package dev.stillroom.model

import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.io.InputStream
import java.util.zip.ZipException
import java.util.zip.ZipInputStream

private const val BLOCK_BYTES = 1 shl 16

/**
 * Unpack a bundle that was picked from storage as a .zip into a folder of the app, which it replaces whole.
 *
 * The zip is not trusted: its names must be plain ones, of files alone, and what it unpacks to is counted as
 * it is written, up to [maxBytes] in all. [check] reads what was unpacked, by default as [openBundle] does: a
 * bundle that is refused leaves [into] as it was. Throws [BundleError], and nothing else but what [check]
 * throws.
 */
fun unpackBundle(
    zip: InputStream,
    into: File,
    maxBytes: Long = Limits.MODEL_BYTES,
    check: (BundleSource) -> Unit = { openBundle(it) },
): FolderSource = replaceFolder(into) { partial ->
    unpack(zip, partial, maxBytes)
    check(FolderSource(partial).also { it.checkFlat() })
}

/**
 * Copy a bundle (of assets) to a folder of the app, which it replaces whole: for a runtime that opens files
 * by path only. The model goes there through its memory map, so it is never on the heap. Throws
 * [BundleError].
 */
fun copyBundle(from: BundleSource, into: File, on: Runtime = runtime): FolderSource =
    replaceFolder(into) { partial ->
        val manifest = from.read(BundleFiles.MANIFEST, Limits.MANIFEST_BYTES)
        val files = readManifest(manifest, on).files
        write(File(partial, BundleFiles.MANIFEST)) { it.write(manifest) }
        for (listed in files) {
            write(File(partial, listed.file)) { out ->
                val content = from.map(listed.file).duplicate()
                while (content.hasRemaining()) out.channel.write(content)
            }
        }
        openBundle(FolderSource(partial), on)
    }

private fun unpack(zip: InputStream, folder: File, maxBytes: Long) {
    var bytesLeft = maxBytes
    val names = HashSet<String>()
    try {
        val entries = ZipInputStream(zip)
        while (true) {
            val entry = entries.nextEntry ?: break
            val name = BundleFiles.check(entry.name)
            // Two names that differ by case are one file on some file systems.
            if (!names.add(name.lowercase())) {
                throw BundleError.Malformed("the zip holds $name twice: zip the bundle again")
            }
            if (names.size > Limits.FILES + 1) {
                throw BundleError.TooLarge(
                    "the zip has over ${Limits.FILES + 1} files: zip the files of one bundle alone",
                )
            }
            write(File(folder, name)) { bytesLeft = copy(entries, it, bytesLeft, maxBytes) }
        }
    } catch (error: BundleError) {
        throw error
    } catch (error: Exception) {
        // IllegalArgumentException: a name that is not UTF-8. Anything else is of the picked file's provider.
        val isFormat = error is ZipException || error is IllegalArgumentException
        val reason = if (isFormat) "is no whole zip" else "cannot be read"
        throw BundleError.Malformed(
            "the picked file $reason, ${error.message}: zip the bundle again and pick that",
        )
    }
    if (names.isEmpty()) {
        throw BundleError.Malformed("the picked file is no zip, or an empty one: pick a bundle's .zip")
    }
}

/** Copy what an entry unpacks to; returns how many bytes may still come. */
private fun copy(from: InputStream, to: FileOutputStream, bytesLeft: Long, maxBytes: Long): Long {
    val block = ByteArray(BLOCK_BYTES)
    var left = bytesLeft
    while (true) {
        val count = from.read(block)
        if (count < 0) return left
        left -= count
        if (left < 0) {
            throw BundleError.TooLarge("the zip unpacks to over $maxBytes bytes: pick a smaller bundle")
        }
        try {
            to.write(block, 0, count)
        } catch (error: IOException) {
            throw notWritten(error)
        }
    }
}

/** Write a new file whole, down to the disk. */
private fun write(file: File, fill: (FileOutputStream) -> Unit) {
    val out = try {
        FileOutputStream(file)
    } catch (error: IOException) {
        throw notWritten(error)
    }
    out.use {
        fill(it)
        try {
            it.fd.sync()
        } catch (error: IOException) {
            throw notWritten(error)
        }
    }
}

private fun notWritten(error: IOException) =
    BundleError.Storage(
        "the app's storage cannot be written, ${error.message}: free some space and try again",
        error,
    )

/**
 * Fill a folder beside [into], then rename it: a crash leaves the old content or the new, and nothing
 * between.
 */
private fun replaceFolder(into: File, fill: (File) -> Unit): FolderSource {
    val target = into.absoluteFile
    val partial = File(target.parentFile, ".${target.name}.partial")
    val replaced = File(target.parentFile, ".${target.name}.replaced")
    try {
        // Killed between the two renames below: the old content is what there is.
        if (!target.exists()) replaced.renameTo(target)
        if (!remove(partial) || !remove(replaced) || !partial.mkdirs()) {
            throw BundleError.Storage("the folder $partial cannot be made: free some space and try again")
        }
        fill(partial)
        if (target.exists() && !target.renameTo(replaced) || !partial.renameTo(target)) {
            replaced.renameTo(target)
            throw BundleError.Storage("the folder $target cannot be replaced: free some space and try again")
        }
        remove(replaced)
    } catch (error: IOException) {
        throw notWritten(error)
    } finally {
        remove(partial)
    }
    return FolderSource(target)
}

/** Delete a folder and the files in it; true when there is none any more. A link is deleted, not followed. */
private fun remove(folder: File): Boolean {
    folder.listFiles()?.forEach { it.delete() }
    return folder.delete() || !folder.exists()
}

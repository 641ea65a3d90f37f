package android.content.res

import java.io.Closeable
import java.io.File
import java.io.FileDescriptor
import java.io.FileInputStream
import java.io.FileNotFoundException
import java.io.InputStream

/**
 * Assets of an APK: small files are compressed in it, so that they can be read and have no descriptor; a
 * model lies in it as it is, at an offset that is no multiple of a page.
 */
class AssetManager(private val folder: File) {
    fun open(name: String): InputStream = fileOf(name).inputStream()

    fun openFd(name: String): AssetFileDescriptor {
        val file = fileOf(name)
        if (file.extension in setOf("txt", "json")) throw FileNotFoundException("$name is compressed")
        val apk = File.createTempFile("base", ".apk").apply { deleteOnExit() }
        apk.writeBytes(ByteArray(OFFSET) + file.readBytes() + ByteArray(OFFSET))
        return AssetFileDescriptor(FileInputStream(apk), OFFSET.toLong(), file.length())
    }

    private fun fileOf(name: String): File =
        File(folder, name).also { if (!it.isFile) throw FileNotFoundException(name) }

    private companion object {
        const val OFFSET = 12_344
    }
}

class AssetFileDescriptor(
    private val apk: FileInputStream,
    val startOffset: Long,
    val length: Long,
) : Closeable {
    val fileDescriptor: FileDescriptor get() = apk.fd

    override fun close() = apk.close()
}

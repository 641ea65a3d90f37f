package dev.stillroom.model

import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.ByteArrayInputStream
import java.io.ByteArrayOutputStream
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream

class StorageTest {
    @get:Rule
    val temporary = TemporaryFolder()
    private lateinit var into: File

    @Before
    fun oldContent() {
        into = temporary.newFolder("bundle")
        File(into, "old").writeText("old")
    }

    private fun zip(files: Map<String, ByteArray>): ByteArray {
        val out = ByteArrayOutputStream()
        ZipOutputStream(out).use { zip ->
            for ((name, content) in files) {
                zip.putNextEntry(ZipEntry(name))
                zip.write(content)
            }
        }
        return out.toByteArray()
    }

    private fun unpack(zip: InputStream, maxBytes: Long = 1 shl 20) =
        unpackBundle(zip, into, maxBytes) { openBundle(it, FakeRuntime()) }

    private fun unpack(files: Map<String, ByteArray>, maxBytes: Long = 1 shl 20) =
        unpack(ByteArrayInputStream(zip(files)), maxBytes)

    /** Nothing of a refused bundle is left, and the old content is as it was. */
    private fun assertUntouched() {
        assertEquals(listOf("bundle"), temporary.root.list()!!.asList())
        assertEquals(listOf("old"), into.list()!!.asList())
    }

    @Test
    fun aGoodBundleTakesThePlaceOfTheOldContent() {
        val files = TestBundle().files()
        val source = unpack(files)
        assertEquals(files.keys, into.list()!!.toSet())
        assertEquals(listOf("bundle"), temporary.root.list()!!.asList())
        assertEquals("a test", openBundle(source, FakeRuntime()).manifest.name)
    }

    @Test
    fun namesOfAZipThatLeadElsewhereAreRefused() {
        for (name in listOf(
            "../labels.txt", "/tmp/x", "bundle/manifest.json", "..\\x", "folder/", ".hidden", "a\u0000",
        )) {
            refusal<BundleError.PathEscape> { unpack(TestBundle().files().apply { put(name, ByteArray(1)) }) }
            assertUntouched()
        }
        assertFalse(File(temporary.root.parentFile, "labels.txt").exists())
    }

    @Test
    fun whatAZipUnpacksToIsBounded() {
        val bomb = mapOf("manifest.json" to ByteArray(100 shl 20))
        val packed = zip(bomb)
        assertTrue(packed.size < 1 shl 20)
        refusal<BundleError.TooLarge> { unpack(ByteArrayInputStream(packed)) }
        assertUntouched()
        refusal<BundleError.TooLarge> { unpack((1..18).associate { "file$it" to ByteArray(1) }) }
        assertUntouched()
    }

    @Test
    fun whatIsNoZipOfABundleIsRefused() {
        val good = zip(TestBundle().files())
        refusal<BundleError.Malformed> { unpack(ByteArrayInputStream(ByteArray(0))) }
        refusal<BundleError.Malformed> { unpack(ByteArrayInputStream("a picture".toByteArray())) }
        refusal<BundleError.Missing> { unpack(mapOf("a.txt" to ByteArray(3))) }
        refusal<BundleError.Malformed> { unpack(mapOf("a.txt" to ByteArray(3), "A.txt" to ByteArray(3))) }
        refusal<BundleError.WrongChecksum> { unpack(TestBundle().files() + ("model.onnx" to ByteArray(64))) }
        for (cut in 1 until good.size step 37) {
            try {
                unpack(ByteArrayInputStream(good.copyOf(cut)))
            } catch (error: BundleError) {
                assertUntouched()
                continue
            }
            // The list at a zip's end is not read: what comes before it may be all of the bundle.
            assertEquals(5, into.list()!!.size)
            into.listFiles()!!.forEach { it.delete() }
            oldContentAgain()
        }
    }

    private fun oldContentAgain() = File(into, "old").writeText("old")

    @Test
    fun aProviderThatFailsIsNoCrash() {
        val failing = object : InputStream() {
            override fun read(): Int = throw IOException("the cloud is gone")
        }
        val error = refusal<BundleError.Malformed> { unpack(failing) }
        assertTrue("the cloud is gone" in error.message!!)
        val insecure = object : InputStream() {
            override fun read(): Int = throw SecurityException("no longer permitted")
        }
        refusal<BundleError.Malformed> { unpack(insecure) }
        assertUntouched()
    }

    @Test
    fun aBundleIsCopiedAndOldContentIsFoundAgainAfterACrash() {
        val files = TestBundle().files()
        val source = copyBundle(MemorySource(files), into, FakeRuntime())
        for ((name, content) in files) assertArrayEquals(content, File(into, name).readBytes())
        assertEquals(File(into, "model.onnx").path, source.path("model.onnx"))
        // As after a crash between the two renames.
        assertTrue(into.renameTo(File(temporary.root, ".bundle.replaced")))
        refusal<BundleError.Missing> { copyBundle(MemorySource(emptyMap()), into, FakeRuntime()) }
        assertEquals(files.keys, into.list()!!.toSet())
    }

    @Test
    fun aFolderGivesItsFilesAndNothingElse() {
        val source = FolderSource(TestBundle().write(into))
        assertEquals(64L, source.sizeBytes("model.onnx"))
        val map = source.map("model.onnx")
        assertTrue(map.isDirect && map.isReadOnly)
        assertEquals(sumOf(ByteArray(64) { it.toByte() }), sha256(map))
        assertEquals(0, map.position())
        assertArrayEquals("bad\ngood\n".toByteArray(), source.read("labels.txt", 9))
        refusal<BundleError.TooLarge> { source.read("labels.txt", 8) }
        for (name in listOf("../bundle/labels.txt", "/etc/passwd", "a/b", "")) {
            refusal<BundleError.PathEscape> { source.read(name, 100) }
            refusal<BundleError.PathEscape> { source.map(name) }
            refusal<BundleError.PathEscape> { source.path(name) }
        }
        refusal<BundleError.Missing> { source.sizeBytes("other.txt") }
        assertTrue(File(into, "folder").mkdir())
        refusal<BundleError.Missing> { source.read("folder", 100) }
        refusal<BundleError.PathEscape> { source.checkFlat() }
    }
}

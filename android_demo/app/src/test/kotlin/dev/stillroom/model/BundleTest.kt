package dev.stillroom.model

import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

class BundleTest {
    private fun open(
        bundle: TestBundle = TestBundle(),
        change: (MutableMap<String, ByteArray>) -> Unit = {},
    ): Bundle = openBundle(MemorySource(bundle.files().also(change)), FakeRuntime())

    @Test
    fun everyKindOfTaskOpens() {
        for (kind in TaskKind.values()) {
            for (pair in listOf(false, true)) {
                for (tokenTypes in listOf(false, true)) {
                    val bundle = open(TestBundle(kind, pair = pair, tokenTypes = tokenTypes))
                    val golden = bundle.goldens.single()
                    val found = bundle.tokenizer.encode(golden.text, golden.pair)
                    assertArrayEquals(golden.ids, found.ids)
                    if (tokenTypes) assertArrayEquals(golden.typeIds, found.typeIds)
                }
            }
        }
    }

    @Test
    fun aFileThatIsNotTheListedOneIsRefused() {
        for (name in listOf("golden.json", "labels.txt", "vocab.txt", "model.onnx")) {
            refusal<BundleError.Missing> { open { it.remove(name) } }
            refusal<BundleError.WrongChecksum> { open { it[name] = it.getValue(name) + 1 } }
            refusal<BundleError.WrongChecksum> { open { it[name] = ByteArray(it.getValue(name).size) } }
        }
        refusal<BundleError.Missing> { open { it.remove("manifest.json") } }
    }

    @Test
    fun labelsAndVocabularyFitTheManifest() {
        refusal<BundleError.Malformed> { open(TestBundle().apply { labelLines = "good\nbad\n" }) }
        refusal<BundleError.Malformed> { open(TestBundle().apply { labelLines = "bad\ngood" }) }
        val short = refusal<BundleError.Malformed> {
            open(TestBundle().apply { vocabulary = "[PAD]\n[UNK]\n[CLS]\n" })
        }
        assertTrue(short.message!!, "sep_id is 3, vocab.txt has 3 tokens" in short.message!!)
        refusal<BundleError.Malformed> { open(TestBundle().apply { manifest["pad_id"] = 8 }) }
        refusal<BundleError.Malformed> {
            open(TestBundle().apply { part("tokenizer", "wordpiece")["added"] = mapOf("[MASK]" to 8) })
        }
        refusal<BundleError.TooLarge> { open(TestBundle().apply { vocabulary = "\n".repeat(600_001) }) }
    }

    @Test
    fun filesOverTheirBoundAreNotRead() {
        val largest = mapOf("golden.json" to 4194304, "labels.txt" to 1048576, "vocab.txt" to 8388608)
        for ((name, bytes) in largest) {
            val bundle = TestBundle()
            val files = bundle.files { manifest ->
                @Suppress("UNCHECKED_CAST")
                val listed = manifest["files"] as List<MutableMap<String, Any?>>
                listed.first { it["file"] == name }["size_bytes"] = bytes + 1
            }
            val error = refusal<BundleError.TooLarge> { openBundle(MemorySource(files), FakeRuntime()) }
            assertTrue(error.message!!, "${bytes + 1} bytes" in error.message!!)
        }
    }

    @Test
    fun aMessageIsOneShortLine() {
        val error = BundleError.Malformed("a\nb\u0000c\u0085d: " + "x".repeat(1000))
        assertEquals("a?b?c?d: ", error.message!!.take(9))
        assertEquals(403, error.message!!.length)
    }
}

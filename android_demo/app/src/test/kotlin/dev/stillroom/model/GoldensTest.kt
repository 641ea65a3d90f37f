package dev.stillroom.model

import dev.stillroom.tokenization.Encoding
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test

class GoldensTest {
    private fun opened(
        bundle: TestBundle = TestBundle(),
        change: (MutableMap<String, Any?>) -> Unit,
    ): Bundle = bundle.apply { change(golden()) }.open()

    @Test
    fun aGoldenVectorThatNoModelHasIsRefused() {
        val changes = listOf<(MutableMap<String, Any?>) -> Unit>(
            { it["logits"] = listOf(1.0) },
            { it["logits"] = listOf(1.0, "NaN") },
            { it["logits"] = listOf(1.0, null) },
            { it["label"] = "bad" },
            { it["label"] = "neither" },
            { it["input_ids"] = emptyList<Int>() },
            { it["input_ids"] = listOf(2, 8, 3) },
            { it["input_ids"] = List(9) { 2 } },
        )
        for (change in changes) refusal<BundleError.WrongGolden> { opened(change = change) }
        for (kind in listOf(TaskKind.MULTI_LABEL, TaskKind.REGRESSION)) {
            val wrong: Any = if (kind == TaskKind.REGRESSION) 0.26 else listOf("bad", "good")
            refusal<BundleError.WrongGolden> { opened(TestBundle(kind)) { it["label"] = wrong } }
        }
        refusal<BundleError.WrongGolden> {
            opened(TestBundle(tokenTypes = true)) { it["token_type_ids"] = listOf(0, 0) }
        }
    }

    @Test
    fun anotherFormIsRefused() {
        refusal<BundleError.Malformed> { opened { it.remove("text") } }
        refusal<BundleError.Malformed> { opened { it["pair"] = "great" } }
        refusal<BundleError.Malformed> { opened { it["text"] = 7 } }
        refusal<BundleError.Malformed> { opened { it["input_ids"] = "2 5 3" } }
        // The second id would be 5 in 32 bits.
        refusal<BundleError.Malformed> { opened { it["input_ids"] = listOf(2, 4294967301L, 3) } }
        refusal<BundleError.Malformed> { opened { it["input_ids"] = listOf(2, -1, 3) } }
        refusal<BundleError.Malformed> { opened(TestBundle(pair = true)) { it.remove("pair") } }
        refusal<BundleError.Malformed> { TestBundle().apply { goldens[0] = 1 }.open() }
        refusal<BundleError.WrongGolden> { TestBundle().apply { goldens.add(golden()) }.open() }
        refusal<BundleError.TooLarge> { TestBundle().apply { part("golden")["count"] = 1001 }.open() }
    }

    @Test
    fun nanInTheFileIsRefused() {
        val bundle = TestBundle()
        for (written in listOf("NaN", "Infinity", "1e999")) {
            val text = writeJson(bundle.goldens).replace("-1.0", written)
            val error = refusal<BundleError.Malformed> { parsed(text.toByteArray(), "golden.json") }
            assertTrue(error.message!!, "golden.json is not JSON" in error.message!!)
        }
    }

    private fun replayed(bundle: Bundle, answer: (Encoding) -> FloatArray): GoldenReport =
        Classifier(bundle, FakeRuntime(answer = answer).open(bundle, 1)).use { replayGoldens(it) }

    @Test
    fun agreementAndTheFirstDifferenceAreTold() {
        val bundle = TestBundle().open()
        val good = replayed(bundle) { floatArrayOf(-1.04f, 2f) }
        assertNull(good.firstDifference)
        assertEquals(0.04, good.maxAbsError, 1e-6)
        assertEquals(1, good.count)
        assertEquals(0.05, good.allowed, 0.0)
        val off = replayed(bundle) { floatArrayOf(-1f, 2.5f) }
        assertEquals(
            "golden vector 0 (Food): the logit of good is 2.5, recorded is 2.0, 0.05 apart is allowed",
            off.firstDifference,
        )
        assertEquals(0.5, off.maxAbsError, 0.0)
        val other = replayed(bundle) { floatArrayOf(3f, 2f) }.firstDifference!!
        assertTrue(other, other.endsWith("; it says [bad], recorded is [good]"))
    }

    @Test
    fun aTokenizerThatDiffersIsNamed() {
        val bundle = opened { it["input_ids"] = listOf(2, 7, 3) }
        val found = replayed(bundle) { floatArrayOf(-1f, 2f) }.firstDifference
        assertEquals("golden vector 0 (Food): id 1 is 5, recorded is 7: the tokenizer differs", found)
        val longer = opened { it["input_ids"] = listOf(2, 5, 3, 3) }
        assertEquals(
            "golden vector 0 (Food): id 3 is missing, recorded is 3: the tokenizer differs",
            replayed(longer) { floatArrayOf(-1f, 2f) }.firstDifference,
        )
        val types = opened(TestBundle(pair = true, tokenTypes = true)) {
            it["token_type_ids"] = listOf(0, 0, 0, 0, 1)
        }
        assertTrue("type id 3 is 1" in replayed(types) { floatArrayOf(-1f, 2f) }.firstDifference!!)
    }
}

package dev.stillroom.tokenization

import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import java.util.concurrent.ConcurrentLinkedQueue

/** Each of BERT's rules by an example; tests/android/test_tokenizer.py compares with the original. */
class TokenizerTest {
    @Test
    fun aTextStandsBetweenClsAndSep() {
        assertEquals("[CLS] hello world [SEP]", tokens("hello world"))
        assertEquals("[CLS] [SEP]", tokens(""))
    }

    @Test
    fun whatTheVocabularyLacksIsUnknown() = assertEquals("[CLS] hello [UNK] [SEP]", tokens("hello strange"))

    @Test
    fun aWordIsTheLongestPiecesThereAre() {
        assertEquals("[CLS] un ##aff ##able [SEP]", tokens("unaffable"))
        assertEquals("[CLS] un ##a [SEP]", tokens("una"))
        assertEquals("a piece that is missing makes all of it unknown", "[CLS] [UNK] [SEP]", tokens("unaffx"))
        assertEquals("a word does not begin with a later piece", "[CLS] [UNK] [SEP]", tokens("able"))
    }

    @Test
    fun aWordThatIsTooLongIsUnknown() {
        assertEquals("[CLS] a ##a ##a [SEP]", tokens("aaa", options(maxWordChars = 3)))
        assertEquals("[CLS] [UNK] [SEP]", tokens("aaaa", options(maxWordChars = 3)))
        val faces = "😀😀😀" // three characters, six UTF-16 units
        assertEquals("[CLS] 😀 ##😀 ##😀 [SEP]", tokens(faces, options(maxWordChars = 3)))
    }

    @Test
    fun punctuationStandsAlone() {
        assertEquals("[CLS] hello , world ! ! [SEP]", tokens("hello,world!!"))
        assertEquals("not only ASCII's", "[CLS] hello ؟ world [SEP]", tokens("hello؟world"))
        assertEquals("signs of ASCII as well", "[CLS] a + a $ [SEP]", tokens("a+a$"))
    }

    @Test
    fun spacesOfAnyKindEndWords() =
        assertEquals("[CLS] hello world a [SEP]", tokens(" hello\u3000\u00A0world\t\r\na "))

    @Test
    fun upperCaseBecomesLower() {
        assertEquals("[CLS] hello world [SEP]", tokens("HELLO World"))
        assertEquals("[CLS] [UNK] world [SEP]", tokens("HELLO world", options(lowercase = false)))
        val unstripped = options(stripAccents = false)
        assertEquals("one character may become two", "[CLS] i\u0307 [SEP]", tokens("İ", unstripped))
        assertEquals("a Greek s at the end stays one", "[CLS] σσ [SEP]", tokens("ΣΣ"))
    }

    @Test
    fun accentsAreStripped() {
        assertEquals("[CLS] cafe cafe [SEP]", tokens("CAFÉ cafe\u0301"))
        assertEquals("[CLS] café [SEP]", tokens("Café", options(stripAccents = false)))
        assertEquals("without lower case too", "[CLS] cafe [SEP]", tokens("café", options(lowercase = false)))
    }

    @Test
    fun hangulIsTakenApartAsAccentsAre() {
        assertEquals("[CLS] \u1100\u1161\u11A8 [SEP]", tokens("각"))
        assertEquals("[CLS] \u1100\u1161 [SEP]", tokens("가"))
        assertEquals("[CLS] 각 [SEP]", tokens("각", options(stripAccents = false)))
    }

    @Test
    fun marksThatStayAreOrdered() {
        // NFD puts U+1D165 before U+302E, and neither moves across a mark that is a starter, as U+034F is.
        assertEquals("[CLS] a\uD834\uDD65\u302E [SEP]", tokens("a\u302E\uD834\uDD65"))
        assertEquals("[CLS] a\uD834\uDD65\u302E [SEP]", tokens("a\u302E\u0301\uD834\uDD65"))
        assertEquals("[CLS] a\u302E\uD834\uDD65 [SEP]", tokens("a\u302E\u034F\uD834\uDD65"))
        val unstripped = options(stripAccents = false)
        assertEquals("[CLS] a\u302E\uD834\uDD65 [SEP]", tokens("a\u302E\uD834\uDD65", unstripped))
    }

    @Test
    fun chineseCharactersStandAlone() {
        assertEquals("[CLS] a 中 文 a [SEP]", tokens("a中文a"))
        assertEquals("[CLS] 中文 [SEP]", tokens("中文", options(handleChineseChars = false)))
        assertEquals("also one that becomes another", "[CLS] a 豈 a [SEP]", tokens("a\uF900a"))
    }

    @Test
    fun controlCharactersAreRemoved() {
        assertEquals("[CLS] hello [SEP]", tokens("he\u0000l\u200Bl\u00ADo\uFFFD"))
        assertEquals("[CLS] [UNK] [SEP]", tokens("he\u200Bllo", options(cleanText = false)))
    }

    @Test
    fun aLoneSurrogateCountsAsReplacementCharacter() {
        assertEquals("removed where that is", "[CLS] hello [SEP]", tokens("hel\uD83Dlo\uDE00"))
        assertEquals("[CLS] a\uFFFD [SEP]", tokens("a\uD83D", options(cleanText = false)))
    }

    @Test
    fun addedTokensAreMatchedAsTheyAreWritten() {
        assertEquals("[CLS] hello [MASK] world [SEP]", tokens("hello[MASK]world"))
        assertEquals("not in lower case", "[CLS] [ [UNK] ] [SEP]", tokens("[mask]"))
        assertEquals("nor with something between", "[CLS] [ [UNK] ] [SEP]", tokens("[MA\u200BSK]"))
        val alike = options(added = mapOf("[MASK]" to id("[MASK]"), "[MASK]s" to id("hello")))
        assertEquals("the longest one", "[CLS] hello [MASK] [SEP]", tokens("[MASK]s[MASK]", alike))
    }

    @Test
    fun longTextsAreCut() {
        assertEquals("[CLS] hello world [SEP]", tokens("hello world hello", maxLength = 4))
        assertEquals("inside a word too", "[CLS] un ##aff [SEP]", tokens("unaffable", maxLength = 4))
        assertEquals("[CLS] [SEP]", tokens("hello", maxLength = 2))
    }

    @Test
    fun aPairHasTypes() {
        val encoding = tokenizer().encode("hello world", "a")
        assertEquals("[CLS] hello world [SEP] a [SEP]", words(encoding))
        assertArrayEquals(intArrayOf(0, 0, 0, 0, 1, 1), encoding.typeIds)
        assertEquals("[CLS] [SEP] [SEP]", words(tokenizer().encode("", "")))
    }

    @Test
    fun ofAPairTheLongerIsCutFirst() {
        val tokenizer = tokenizer(maxLength = 3 + 5)
        val long = "un ".repeat(9)
        assertEquals("[CLS] a [SEP] un un un un [SEP]", words(tokenizer.encode("a", long)))
        assertEquals("[CLS] a a [SEP] un un un [SEP]", words(tokenizer.encode("a a a", long)))
        assertEquals("[CLS] un un un [SEP] a a [SEP]", words(tokenizer.encode(long, "a a a")))
        assertEquals("[CLS] un un [SEP] un un un [SEP]", words(tokenizer.encode(long, long)))
        assertEquals("[CLS] un un un [SEP] un un [SEP]", words(tokenizer.encode(long + "un", long)))
    }

    @Test
    fun threadsMayShareATokenizer() {
        val tokenizer = tokenizer()
        val texts = listOf("hello world", "unaffable", "a中文a", "a + a", "hello[MASK]")
        val wanted = texts.map { words(tokenizer.encode(it)) }
        val wrong = ConcurrentLinkedQueue<String>()
        val threads = texts.zip(wanted).map { (text, right) ->
            Thread { repeat(2000) { if (words(tokenizer.encode(text)) != right) wrong += text } }
        }
        threads.forEach(Thread::start)
        threads.forEach(Thread::join)
        assertTrue("$wrong", wrong.isEmpty())
    }

    @Test
    fun settingsThatCannotBeAreRefused() {
        assertRefused("max_length is 1, the special tokens alone are 2: train with a longer one") {
            tokenizer(maxLength = 1)
        }
        assertRefused("max_length is 2, the special tokens alone are 3: train with a longer one") {
            tokenizer(maxLength = 2).encode("a", "a")
        }
        assertRefused("max_word_chars is 0, 1 or more is wanted: write the bundle again") {
            tokenizer(options(maxWordChars = 0))
        }
        val size = TINY_VOCABULARY.size
        assertRefused("[X] is $size, ids of vocab.txt are below $size: write the bundle again") {
            tokenizer(options(added = mapOf("[X]" to size)))
        }
    }

    private fun tokens(text: String, options: WordPieceOptions = options(), maxLength: Int = 64) =
        words(tokenizer(options, maxLength).encode(text))
}

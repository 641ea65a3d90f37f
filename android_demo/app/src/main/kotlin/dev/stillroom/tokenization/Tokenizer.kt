package dev.stillroom.tokenization

/**
 * A text, or a pair of texts, as a model reads it: [CLS] text [SEP], or [CLS] text [SEP] pair [SEP].
 *
 * @property ids of tokens, special ones included, at most the tokenizer's maxLength of them; no padding
 * @property typeIds as many: 1 for the pair and the [SEP] behind it, else 0
 */
class Encoding(val ids: IntArray, val typeIds: IntArray)

/**
 * BERT's tokenizer, with the ids that Hugging Face's `tokenizers` gives for every text.
 *
 * Texts are split at added tokens, normalized character by character, split into words at spaces and around
 * punctuation, and words into pieces of the vocabulary. A lone surrogate, which no valid text has, counts as
 * U+FFFD. Threads may share a tokenizer: they take turns, since its buffers serve one text at a time.
 */
class Tokenizer(vocabulary: Vocabulary, private val options: WordPieceOptions, private val maxLength: Int) {
    private val added = AddedTokens(options.added)
    private val splitter: WordSplitter
    private val first = IdBuffer()
    private val second = IdBuffer()

    init {
        requireRoom(SPECIAL_OF_ONE)
        require(options.maxWordChars >= 1) {
            "max_word_chars is ${options.maxWordChars}, 1 or more is wanted: write the bundle again"
        }
        val roles = mapOf(
            "unknown_id" to options.unknownId,
            "cls_id" to options.clsId,
            "sep_id" to options.sepId,
        )
        for ((name, id) in roles + options.added) {
            require(id in 0 until vocabulary.size) {
                "$name is $id, ids of vocab.txt are below ${vocabulary.size}: write the bundle again"
            }
        }
        val wordPiece = WordPiece(vocabulary, options.prefix, options.maxWordChars, options.unknownId)
        splitter = WordSplitter(Normalizer(options, UnicodeTables.load()), wordPiece)
    }

    /**
     * Encodes [text], or the two together, cut to maxLength tokens.
     *
     * Reading takes time by the length of the texts; what is allocated is the answer.
     *
     * @throws IllegalArgumentException when there is a [pair], and maxLength below three special tokens
     */
    @Synchronized
    fun encode(text: String, pair: String? = null): Encoding {
        if (pair == null) return encodeOne(text)
        val room = maxLength - SPECIAL_OF_PAIR
        requireRoom(SPECIAL_OF_PAIR)
        // Which of two long texts is longer decides where an odd token goes: both are read to their end.
        read(text, first, room, countsAll = true)
        read(pair, second, room, countsAll = true)
        val ofFirst = keptOfFirst(first.count, second.count, room)
        val ofSecond = minOf(second.count, room - ofFirst)
        val ids = IntArray(ofFirst + ofSecond + SPECIAL_OF_PAIR)
        val middle = ofFirst + 1
        ids[0] = options.clsId
        first.copyTo(ids, 1, ofFirst)
        ids[middle] = options.sepId
        second.copyTo(ids, middle + 1, ofSecond)
        ids[ids.size - 1] = options.sepId
        val typeIds = IntArray(ids.size)
        typeIds.fill(1, middle + 1, ids.size)
        return Encoding(ids, typeIds)
    }

    private fun encodeOne(text: String): Encoding {
        val room = maxLength - SPECIAL_OF_ONE
        read(text, first, room, countsAll = false)
        val kept = minOf(first.count, room)
        val ids = IntArray(kept + SPECIAL_OF_ONE)
        ids[0] = options.clsId
        first.copyTo(ids, 1, kept)
        ids[ids.size - 1] = options.sepId
        return Encoding(ids, IntArray(ids.size))
    }

    private fun read(text: String, ids: IdBuffer, room: Int, countsAll: Boolean) {
        ids.start(room, countsAll)
        var at = 0
        while (at < text.length && !ids.isFull) {
            val token = added.find(text, at)
            splitter.split(text, at, token, ids)
            if (token == text.length) return
            ids.add(added.id)
            at = added.end
        }
    }

    private fun requireRoom(special: Int) = require(maxLength >= special) {
        "max_length is $maxLength, the special tokens alone are $special: train with a longer one"
    }

    private companion object {
        const val SPECIAL_OF_ONE = 2
        const val SPECIAL_OF_PAIR = 3
    }
}

/**
 * How many tokens of the first of two texts stay, when [room] is for both: "longest first".
 *
 * The shorter one keeps all, or half of the room, and the longer one gets the rest. An odd token goes to the
 * longer one, and to the second of two that are equally long.
 */
internal fun keptOfFirst(first: Int, second: Int, room: Int): Int {
    if (first <= room - second) return first
    val shorter = minOf(first, second, room / 2)
    return if (first > second) room - shorter else shorter
}

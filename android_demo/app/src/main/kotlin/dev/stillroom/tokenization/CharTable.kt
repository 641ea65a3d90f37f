package dev.stillroom.tokenization

/**
 * One Int per Unicode code point, 0 until it is set.
 *
 * In blocks of 256, many of which are one and the same: the tens of thousands of Chinese characters, or all
 * that are not mentioned anywhere, take a block each.
 */
internal class CharTable {
    private val blocks = Array(CODE_POINTS / BLOCK) { NOTHING }
    private val uniform = HashMap<Int, IntArray>() // value -> the block that is full of it

    init {
        uniform[0] = NOTHING
    }

    operator fun get(codePoint: Int): Int = blocks[codePoint shr BITS][codePoint and (BLOCK - 1)]

    operator fun set(codePoint: Int, value: Int) {
        val index = codePoint shr BITS
        val block = blocks[index]
        if (uniform[block[0]] === block) blocks[index] = block.copyOf()
        blocks[index][codePoint and (BLOCK - 1)] = value
    }

    /** Sets all of [first]..[last]. */
    fun fill(first: Int, last: Int, value: Int) {
        var codePoint = first
        while (codePoint <= last) {
            if (codePoint and (BLOCK - 1) == 0 && codePoint + BLOCK - 1 <= last) {
                blocks[codePoint shr BITS] = uniform.getOrPut(value) { IntArray(BLOCK) { value } }
                codePoint += BLOCK
            } else {
                set(codePoint++, value)
            }
        }
    }

    private companion object {
        const val BITS = 8
        const val BLOCK = 1 shl BITS
        const val CODE_POINTS = 0x110000
        val NOTHING = IntArray(BLOCK)
    }
}

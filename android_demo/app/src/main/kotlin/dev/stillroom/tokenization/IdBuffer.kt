package dev.stillroom.tokenization

/** The ids of one text so far: the first [limit] of them, and how many there are in all. */
internal class IdBuffer {
    private var ids = IntArray(START)
    private var limit = 0
    private var countsAll = false

    var count = 0
        private set

    /** Whether no later id can matter. */
    val isFull get() = !countsAll && count >= limit

    /** Begins a text of which [limit] ids are wanted; with [countsAll] the rest are counted too. */
    fun start(limit: Int, countsAll: Boolean) {
        this.limit = limit
        this.countsAll = countsAll
        count = 0
    }

    fun add(id: Int) {
        if (count < limit) {
            if (count == ids.size) ids = ids.copyOf(2 * count)
            ids[count] = id
        }
        count++
    }

    /** Takes back all but the first [count]. */
    fun cutTo(count: Int) {
        this.count = count
    }

    fun copyTo(target: IntArray, at: Int, count: Int) {
        System.arraycopy(ids, 0, target, at, count)
    }

    private companion object {
        const val START = 128
    }
}

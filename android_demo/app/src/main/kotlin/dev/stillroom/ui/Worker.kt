package dev.stillroom.ui

import android.os.Handler
import android.os.Looper
import java.util.concurrent.Executors

/** One background thread. What it finds is handed to the main thread, and to nobody once it is closed. */
internal class Worker {
    private val background = Executors.newSingleThreadExecutor()
    private val main = Handler(Looper.getMainLooper())
    private var closed = false // main thread only

    /** Do [work] in the background, then [done] on the main thread. Call it on the main thread. */
    fun <T> run(work: () -> T, done: (Result<T>) -> Unit) {
        if (closed) return
        background.execute {
            val result = attempt(work)
            main.post { if (!closed) done(result) }
        }
    }

    /** Do something on the main thread, from within a work. */
    fun post(action: () -> Unit) {
        main.post { if (!closed) action() }
    }

    /** Let the work in progress end and [last] after it; nothing comes back any more. */
    fun close(last: () -> Unit) {
        if (closed) return
        closed = true
        background.execute { attempt(last) }
        background.shutdown()
    }

    private fun <T> attempt(work: () -> T): Result<T> = try {
        Result.success(work())
    } catch (error: Exception) {
        Result.failure(error)
    } catch (error: LinkageError) { // the runtime's library is not there for this processor
        Result.failure(error)
    } catch (error: OutOfMemoryError) { // a model that is too large for this phone
        Result.failure(error)
    }
}

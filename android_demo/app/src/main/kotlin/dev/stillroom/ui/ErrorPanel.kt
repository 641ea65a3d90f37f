package dev.stillroom.ui

import android.view.View
import android.widget.TextView
import dev.stillroom.demo.R
import dev.stillroom.model.BundleError
import dev.stillroom.model.GoldenReport

/** What went wrong, what the code saw, and what to do about it. */
internal class ErrorPanel(private val panel: View) {
    /** Show an error, or nothing for null. */
    fun show(error: Throwable?) =
        show(error?.let(::titleOf), error?.let { it.message ?: it.javaClass.simpleName })

    /** Show how a golden vector differed, or nothing when none did. */
    fun show(golden: GoldenReport?) =
        show(R.string.golden_differs.takeIf { golden?.firstDifference != null }, golden?.firstDifference)

    private fun show(title: Int?, detail: String?) {
        if (title != null) {
            // Would another bundle help?
            val another = title != R.string.error_storage && title != R.string.error_other
            panel.find<TextView>(R.id.error_title).show(panel.context.getString(title))
            panel.find<TextView>(R.id.error_detail).show(detail)
            panel.find<View>(R.id.error_next).shown(another)
            panel.find<View>(R.id.error_command).shown(another)
        }
        panel.shown(title != null)
    }
}

private fun titleOf(error: Throwable): Int = when (error) {
    is BundleError.Missing -> R.string.error_missing
    is BundleError.Malformed -> R.string.error_malformed
    is BundleError.WrongChecksum -> R.string.error_checksum
    is BundleError.TooLarge -> R.string.error_too_large
    is BundleError.PathEscape -> R.string.error_escape
    is BundleError.Unsupported -> R.string.error_unsupported
    is BundleError.WrongRuntime -> R.string.error_runtime
    is BundleError.WrongGolden -> R.string.error_golden
    is BundleError.ModelFailed -> R.string.error_model
    is BundleError.Storage -> R.string.error_storage
    else -> R.string.error_other
}

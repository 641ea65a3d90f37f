package dev.stillroom.ui

import android.content.Context
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.TextView
import dev.stillroom.demo.R
import dev.stillroom.model.Bundle
import dev.stillroom.model.runtime

/** What is in the open bundle, and another one. [pick] opens the document picker, which an activity does. */
internal class BundleScreen(private val root: View, private val session: Session, pick: () -> Unit) {
    private val context: Context = root.context
    private val numbers = Numbers(context)
    private val error = ErrorPanel(root.find(R.id.error))
    private val goldenError = ErrorPanel(root.find(R.id.golden_error))
    private var drawn: Bundle? = null

    init {
        root.find<Button>(R.id.pick).setOnClickListener { pick() }
        root.find<Button>(R.id.built_in).setOnClickListener { session.useBuiltIn() }
        root.find<Button>(R.id.replay).setOnClickListener { session.replay() }
    }

    /** Draw what the session holds. */
    fun show() {
        val bundle = session.bundle
        val idle = session.doing == null
        error.show(session.failure)
        goldenError.show(session.golden)
        root.find<TextView>(R.id.bundle_doing).show(session.doing?.let { context.getString(it.text) })
        root.find<TextView>(R.id.origin).setText(
            if (session.picked) R.string.bundle_origin_picked else R.string.bundle_origin_built_in,
        )
        root.find<View>(R.id.pick).isEnabled = idle
        root.find<View>(R.id.built_in).isEnabled = idle
        root.find<View>(R.id.built_in).shown(session.picked)
        root.find<View>(R.id.replay).isEnabled = idle
        root.find<View>(R.id.replay).shown(bundle != null)
        root.find<TextView>(R.id.bundle_golden).show(numbers.golden(session.golden))
        root.find<View>(R.id.bundle_facts).shown(bundle != null)
        if (bundle != null && bundle !== drawn) draw(bundle)
        drawn = bundle
    }

    private fun draw(bundle: Bundle) {
        val manifest = bundle.manifest
        val task = manifest.task
        val model = manifest.model
        val separator = context.getString(R.string.list_separator)
        val facts = root.find<ViewGroup>(R.id.bundle_facts)
        facts.removeAllViews()
        facts.addFact(R.string.bundle_name, manifest.name)
        facts.addFact(R.string.bundle_task, task.kind.id)
        val more = context.getString(R.string.shown_of, MOST_LABELS, task.labels.size)
        val first = task.labels.take(MOST_LABELS).joinToString(separator)
        facts.addFact(R.string.bundle_labels, if (task.labels.size > MOST_LABELS) "$first\n$more" else first)
        facts.addFact(
            R.string.bundle_max_length,
            context.resources.getQuantityString(R.plurals.tokens, task.maxLength, task.maxLength),
        )
        facts.addFact(R.string.bundle_file, model.file)
        facts.addFact(R.string.bundle_scheme, model.scheme)
        facts.addFact(R.string.bundle_size, numbers.bytes(model.sizeBytes))
        facts.addFact(R.string.bundle_sha256, model.sha256)
        facts.addFact(R.string.bundle_runtime, "${model.runtimeName} ${model.runtimeVersion}")
        facts.addFact(R.string.bundle_app_runtime, "${runtime.name} ${runtime.version}")
        manifest.notice?.let { facts.addFact(R.string.bundle_notice, it) }
    }

    private companion object {
        const val MOST_LABELS = 50 // a task may have a hundred thousand
    }
}

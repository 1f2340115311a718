/*
 * Three buttons in the toolbar of a chapter: Reset this exercise, Hint, Reveal the solution. And no empty rows.
 *
 * A prebuilt extension of JupyterLab 4, written by hand: nothing has to be compiled. JupyterLab finds it by
 * jupyter/jupyter_lab_config.py. What a button does is asked of the notebook's kernel (autograde/buttons.py); here its
 * answer is shown under the exercise's cell, and after a reset its code put into the cell.
 */
(() => {
  const NAME = 'transformer-course';
  const PATIENCE = 60_000; // milliseconds for the kernel's answer: the first hint has torch to import
  const BUTTONS = [
    ['reset', 'Reset this exercise', 'Reset this exercise: the stub comes back, and what you wrote is kept'],
    ['hint', 'Hint', 'Hint: the next one for this exercise'],
    ['reveal', 'Reveal the solution', "Reveal the solution: the course's own, after a try of yours"]
  ];
  // A check's result is a number for nbgrader and no HTML for the reader, who has just seen the report: no row for it.
  const STYLE = '.jp-OutputArea-executeResult:has(> .jp-RenderedHTML:empty) { display: none; }';
  let scope; // JupyterLab's own modules, by name and version

  async function shared(name) {
    const versions = Object.values(scope[name]);
    return (await versions[versions.length - 1].get())();
  }

  function marks(cell) {
    const found = cell.getMetadata('nbgrader');
    return found && typeof found === 'object' ? found : {};
  }

  /** The notebook's cells, as a list. */
  function cellsOf(notebook) {
    const cells = notebook.model ? notebook.model.cells : { length: 0 };
    return Array.from({ length: cells.length }, (_, index) => cells.get(index));
  }

  /** Whether it is a chapter: it has an exercise, and a check that is named after it. */
  function isChapter(notebook) {
    const all = cellsOf(notebook).map(marks);
    const ids = new Set(all.map(each => each.grade_id));
    return all.some(each => each.solution === true && ids.has(`check_${each.grade_id}`));
  }

  /** {index, name} of the exercise of the active cell: its own, the one it checks, or the nearest above. Or null. */
  function exerciseAt(notebook) {
    const all = cellsOf(notebook).map(marks);
    for (let index = notebook.activeCellIndex; index >= 0; index--) {
      const id = String(all[index].grade_id ?? '');
      if (all[index].solution === true) {
        return { index, name: id };
      }
      const checked = id.startsWith('check_')
        ? all.findIndex(each => each.solution === true && `check_${each.grade_id}` === id)
        : -1;
      if (checked >= 0) {
        return { index: checked, name: id.slice('check_'.length) };
      }
    }
    return null;
  }

  /** Why the kernel can't be asked now, in one sentence, or an empty text. */
  function trouble(kernel) {
    if (!kernel || kernel.isDisposed || ['dead', 'terminating'].includes(kernel.status)) {
      return 'No kernel runs here: start one with Kernel, Restart Kernel. Nothing was changed.';
    }
    if (kernel.connectionStatus !== 'connected' || ['unknown', 'starting', 'restarting'].includes(kernel.status)) {
      return 'The kernel is not ready yet: try again in a moment. Nothing was changed.';
    }
    if (kernel.status !== 'idle') {
      return 'The kernel is busy: wait until its cell has ended, or interrupt it. Nothing was changed.';
    }
    return '';
  }

  /** The answer of autograde.buttons.press. It runs in silence: no output, no number, no name in the notebook. */
  async function ask(kernel, button, name, text) {
    const given = [button, name, text].map(each => JSON.stringify(each)).join(', ');
    const code = `__import__("autograde.buttons", fromlist=["press"]).press(${given})`;
    const future = kernel.requestExecute({
      code: '', silent: true, store_history: false, allow_stdin: false, user_expressions: { answer: code }
    });
    const late = new Promise((_, reject) => setTimeout(() => reject(new Error('late')), PATIENCE));
    const reply = await Promise.race([future.done, late]);
    const answer = reply.content.user_expressions?.answer;
    if (answer?.status !== 'ok') {
      throw new Error(answer?.evalue ?? 'no answer');
    }
    return JSON.parse(answer.data['text/plain']);
  }

  /** Show an answer under a code cell, in place of the same button's last one. */
  function show(cell, button, answer) {
    const kept = cell.model.outputs.toJSON().filter(each => each.metadata?.course !== button);
    const data = { 'text/html': answer.html, 'text/plain': answer.text };
    cell.model.outputs.fromJSON([...kept, { output_type: 'display_data', data, metadata: { course: button } }]);
    cell.outputArea.node.scrollIntoView({ block: 'nearest' });
  }

  /** Do what a button says. Gives one sentence where nothing could be done, else an empty text. */
  async function press(button, panel) {
    const notebook = panel.content;
    const found = exerciseAt(notebook);
    if (!found) {
      return 'There is no exercise at this cell or above it: click into one first.';
    }
    const cell = notebook.widgets[found.index];
    if (cell.model.type !== 'code') {
      return `The cell of ${found.name} is not a code cell: make it one (select it, press Escape, then Y).`;
    }
    const kernel = panel.sessionContext.session?.kernel;
    const wrong = trouble(kernel);
    if (wrong) {
      return wrong;
    }
    const text = cell.model.sharedModel.getSource();
    let answer;
    try {
      answer = await ask(kernel, button, found.name, text);
    } catch (error) {
      console.warn(`${NAME}: ${error}`);
      return 'The kernel gave no answer: is it the one of the course, and does it still run? Nothing was changed.';
    }
    if (cell.isDisposed || cell.model.sharedModel.getSource() !== text) {
      return `The cell of ${found.name} was changed meanwhile, so it stays as it is now.`;
    }
    if (answer.code !== null) {
      cell.model.sharedModel.setSource(answer.code); // one step for Undo; metadata stay
      cell.model.outputs.clear();
      cell.model.executionCount = null;
    }
    show(cell, button, answer);
    return '';
  }

  async function plugin() {
    const [{ INotebookTracker }, { Dialog, ICommandPalette, showDialog }, { ToolbarButton }] = await Promise.all(
      ['@jupyterlab/notebook', '@jupyterlab/apputils', '@jupyterlab/ui-components'].map(shared)
    );

    async function pressed(button, label, panel) {
      const sentence = await press(button, panel);
      if (sentence) {
        await showDialog({ title: label, body: sentence, buttons: [Dialog.okButton()] });
      }
      if (!panel.toolbar.node.contains(document.activeElement)) {
        panel.content.activate(); // the focus goes back to the cell, unless the button was pressed by a key
      }
    }

    function addButtons(panel) {
      if (panel.isDisposed || !isChapter(panel.content)) {
        return;
      }
      for (const [button, label, tooltip] of BUTTONS) {
        const onClick = () => pressed(button, label, panel);
        const widget = new ToolbarButton({ label, tooltip, onClick, noFocusOnClick: true });
        widget.addClass(`${NAME}-${button}`);
        if (!panel.toolbar.insertBefore('spacer', `${NAME}-${button}`, widget)) {
          panel.toolbar.addItem(`${NAME}-${button}`, widget);
        }
      }
    }

    return {
      id: `${NAME}:buttons`,
      description: 'Reset, hint and reveal for the exercises of a chapter.',
      autoStart: true,
      requires: [INotebookTracker],
      optional: [ICommandPalette],
      activate: (app, tracker, palette) => {
        document.head.append(Object.assign(document.createElement('style'), { textContent: STYLE }));
        const current = () => {
          const panel = tracker.currentWidget;
          return panel && panel === app.shell.currentWidget && isChapter(panel.content) ? panel : null;
        };
        for (const [button, label, caption] of BUTTONS) {
          const command = `${NAME}:${button}`;
          const execute = () => current() && pressed(button, label, current());
          app.commands.addCommand(command, { label, caption, execute, isEnabled: () => current() !== null });
          palette?.addItem({ command, category: 'Course' });
        }
        const add = panel => Promise.all([panel.revealed, panel.context.ready]).then(() => addButtons(panel));
        tracker.forEach(add);
        tracker.widgetAdded.connect((_, panel) => void add(panel));
      }
    };
  }

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB[NAME] = {
    init: async given => {
      scope = given;
    },
    get: async module => {
      if (module !== './extension') {
        throw new Error(`${NAME} has no module ${module}`);
      }
      const made = await plugin();
      return () => ({ __esModule: true, default: made });
    }
  };
})();

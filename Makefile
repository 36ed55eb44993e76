# Every target sets up .venv by itself; a second run finds it ready. PYTHON picks the interpreter (3.11 or newer).
PYTHON ?= python3
PY := .venv/bin/python
READY := .venv/.ready
# Where `make demo` listens; `make demo HOST=0.0.0.0` opens it to whoever reaches this machine. Not ?=: some shells export HOST.
HOST = 127.0.0.1
PORT = 8080
# In a container people are root, and Jupyter wants to hear that they know.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
# No news and no look for updates: nothing asks the network, and no pop-up covers the page.
QUIET := --LabApp.app_settings_dir="$(CURDIR)/configs/jupyterlab" --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate

.PHONY: lab demo report test notebooks hostile sbom

lab: $(READY)  ## open JupyterLab on the first notebook
	$(PY) -m jupyterlab $(AS_ROOT) $(QUIET) --ServerApp.root_dir="$(CURDIR)" notebooks/01_load_the_checkpoint.ipynb

demo: $(READY)  ## serve the inversion lab at http://localhost:8080, without Jupyter
	$(PY) notebooks/_demo/serve.py --host $(HOST) --port $(PORT)

report: $(READY)  ## execute every notebook and render build/report/index.html; PDF=1: print one PDF as well
	$(PY) notebooks/_report/build.py $(if $(PDF),--pdf)

test: $(READY)  ## run the whole suite
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

hostile: $(READY)  ## over a thousand hostile files, kills and full disks at every write, values of any kind: 15 minutes
	$(PY) -m tests.hostile

sbom: $(READY)  ## write what is installed, as CycloneDX, to build/sbom.json
	$(PY) -m tests.supply.bill

notebooks: $(READY)  ## re-execute the committed notebooks in place, redraw the moving picture
	$(PY) notebooks/_report/execute.py --in-place
	$(PY) notebooks/_report/moving_picture.py

# torch first: asked for by another package, pip would take a build with gigabytes of CUDA libraries.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; run: make PYTHON=python3.12 …")'
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --disable-pip-version-check -q -c constraints.txt torch==2.13.0
	$(PY) -m pip install --disable-pip-version-check -q -c constraints.txt -e ".[lab,report,dev]"
	touch $@

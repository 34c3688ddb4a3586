#!/usr/bin/env python3
"""Runs the notebooks from top to bottom, and compares their outputs with those that are committed.

    python scripts/run_notebooks.py                 # all of notebooks/, with the release build; fails where an output changed
    python scripts/run_notebooks.py --write NAME…   # writes the outputs of this run into the files

The Rust notebooks are for the evcxr Jupyter kernel. Here their cells become one Rust program each (an example of the crate, so that the build
of the library is used), because the kernel would compile the crate and its dependencies once more for each notebook. What a cell
prints, and the value that it ends with, are its outputs, as under the kernel: a chart shows itself as a picture. A Python notebook runs in this interpreter's
environment, and is left out where the file that `needs` names in its metadata isn't there.

Text must be equal, but for numbers: they may differ by 0.03 (processors round differently). A picture must be there again, of the same size.
A cell with the tag `varies` is run and not compared.
"""
import argparse, base64, contextlib, io, json, os, pathlib, re, struct, subprocess, sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MARK = "\x1ecell "
NUMBER = re.compile(r"[-−]?\d+(?:\.\d+)?(?:e-?\d+)?")
TOLERANCE = 0.03
STATEMENTS = {"use", "let", "for", "if", "while", "loop", "match", "fn", "struct", "enum", "impl", "const", "static", "mod", "type", "trait", "unsafe"}
PRELUDE = """// Made by scripts/run_notebooks.py from notebooks/%s.ipynb.
#![allow(unused_imports, unused_mut, dead_code)]
trait Shown {
    fn evcxr_display(&self);
}
impl<T: std::fmt::Debug> Shown for T {
    fn evcxr_display(&self) {
        println!("EVCXR_BEGIN_CONTENT text/plain\\n{self:?}\\nEVCXR_END_CONTENT");
    }
}
fn main() -> Result<(), Box<dyn std::error::Error>> {
    std::env::set_current_dir("notebooks")?;
"""


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def split_value(source):
    """The statements of a cell, and the value that it ends with (empty where it ends with a statement)."""
    depth, end, at = 0, 0, 0
    while at < len(source):
        if source.startswith("//", at):
            at = source.find("\n", at) if "\n" in source[at:] else len(source)
            continue
        one = source[at]
        if one == '"':
            at += 1
            while at < len(source) and source[at] != '"':
                at += 2 if source[at] == "\\" else 1
        elif one in "([{":
            depth += 1
        elif one in ")]}":
            depth -= 1
            # A block that begins with a statement's word ends it; anything after is a new one.
            word = re.match(r"\s*(?:#\[[^\]]*\]\s*)*(?:pub\s+)?(\w+)", source[end:])
            if one == "}" and depth == 0 and word and word.group(1) in STATEMENTS - {"let", "use"}:
                if not source[at + 1 :].lstrip().startswith(("else", ".", "?", ";")):
                    end = at + 1
        elif one == ";" and depth == 0:
            end = at + 1
        at += 1
    return source[:end], source[end:].strip()


def rust_program(name, notebook):
    body = [PRELUDE % name]
    for number, cell in enumerate(code_cells(notebook)):
        source = "".join(cell["source"])
        source = "\n".join(line for line in source.split("\n") if not line.startswith(":"))
        statements, value = split_value(source)
        body.append(f'println!("\\u{{1e}}cell {number}");\n{statements}\n')
        if re.sub(r"//[^\n]*", "", value).strip():
            body.append(f"{{ let value = {{ {value} }}; value.evcxr_display(); }}\n")
    body.append("Ok(())\n}\n")
    return "".join(body)


def run_rust(notebooks, profile):
    """Outputs of each Rust notebook, cell by cell."""
    files = {name: ROOT / "examples" / f"notebook_{name}.rs" for name in notebooks}
    try:
        for name, path in files.items():
            path.write_text(rust_program(name, notebooks[name]))
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        examples = [word for name in files for word in ("--example", f"notebook_{name}")]
        subprocess.run(["cargo", "build", "--profile", profile, *examples], cwd=ROOT, check=True)
        folder = target / ("debug" if profile == "dev" else profile) / "examples"
        return {name: run_program(name, [folder / f"notebook_{name}"]) for name in files}
    finally:
        for path in files.values():
            path.unlink(missing_ok=True)


def run_program(name, command):
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    parts = run.stdout.split(MARK)[1:]
    if run.returncode:
        sys.exit(f"{name}: cell {len(parts) - 1} failed:\n{parts[-1] if parts else run.stdout}")
    return [rust_outputs(part.split("\n", 1)[1]) for part in parts]


def rust_outputs(text):
    """Outputs of what a cell printed: text, and between the kernel's marks a value."""
    outputs = []
    pieces = re.split(r"EVCXR_BEGIN_CONTENT ([^\n]+)\n(.*?)\nEVCXR_END_CONTENT\n", text, flags=re.S)
    for at in range(0, len(pieces), 3):
        if pieces[at]:
            outputs.append({"output_type": "stream", "name": "stdout", "text": pieces[at].splitlines(True)})
        if at + 2 < len(pieces):
            kind, content = pieces[at + 1], pieces[at + 2]
            data = {kind: content if kind == "image/png" else content.splitlines(True)}
            outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
    return outputs


def run_python(name, notebook):
    """Outputs of a Python notebook: what its cells print, and the last expression of each."""
    import ast

    os.chdir(ROOT / "notebooks")
    names, found = {"__name__": "__main__"}, []
    for number, cell in enumerate(code_cells(notebook)):
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        printed, value = io.StringIO(), None
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(tree, f"{name}, cell {number}", "exec"), names)
                if last is not None:
                    value = eval(compile(ast.Expression(last.value), f"{name}, cell {number}", "eval"), names)
        except Exception as error:
            sys.exit(f"{name}: cell {number} failed: {type(error).__name__}: {error}")
        outputs = []
        if printed.getvalue():
            outputs.append({"output_type": "stream", "name": "stdout", "text": printed.getvalue().splitlines(True)})
        if value is not None:
            picture = getattr(value, "_repr_png_", lambda: None)()
            data = {"image/png": base64.b64encode(picture).decode()} if picture else {"text/plain": repr(value).splitlines(True)}
            outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
        found.append(outputs)
    return found


def size(picture):
    """Width and height of a PNG."""
    return struct.unpack(">II", base64.b64decode("".join(picture))[16:24])


def difference(expected, found):
    """What differs between the outputs of a cell; none where nothing does."""
    if [one["output_type"] for one in expected] != [one["output_type"] for one in found]:
        return f"{[one['output_type'] for one in expected]} before, {[one['output_type'] for one in found]} now"
    for before, now in zip(expected, found):
        for kind in set(before.get("data", {"text": 0})) | set(now.get("data", {"text": 0})):
            one, two = (output.get("data", output).get(kind) for output in (before, now))
            if one is None or two is None:
                return f"{kind} in one of the two"
            if kind == "image/png":
                if size(one) != size(two):
                    return f"a picture of {size(one)} before, of {size(two)} now"
                continue
            one, two = "".join(one), "".join(two)
            numbers = [[float(number.replace("−", "-")) for number in NUMBER.findall(text)] for text in (one, two)]
            words = [re.sub(r"\s+", " ", NUMBER.sub("#", text)) for text in (one, two)]
            far = [pair for pair in zip(*numbers) if abs(pair[0] - pair[1]) > TOLERANCE * max(1, abs(pair[0]))]
            if words[0] != words[1] or far:
                return f"{'numbers ' + str(far) if words[0] == words[1] else 'text'}; before:\n{one}\nnow:\n{two}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="names of notebooks, without .ipynb; all where none is given")
    parser.add_argument("--write", action="store_true", help="write the outputs into the files")
    parser.add_argument("--profile", default="release", help="cargo's profile")
    given = parser.parse_args()
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    paths = [path for path in paths if not given.names or path.stem in given.names]
    notebooks = {path.stem: json.loads(path.read_text()) for path in paths}
    if not notebooks:
        sys.exit(f"no notebook {' '.join(given.names)} in notebooks/")
    is_rust = lambda name: notebooks[name]["metadata"]["kernelspec"]["language"] == "rust"
    rust = {name: notebook for name, notebook in notebooks.items() if is_rust(name)}
    found = run_rust(rust, given.profile) if rust else {}
    for name in notebooks.keys() - rust.keys():
        needed = os.path.expandvars(os.path.expanduser(notebooks[name]["metadata"].get("needs", "")))
        if needed and not os.path.exists(needed):
            print(f"{name}: skipped, {needed} isn't there (scripts/real_short.sh fetches it)")
            continue
        found[name] = run_python(name, notebooks[name])
    failed = False
    for name, outputs in sorted(found.items()):
        notebook = notebooks[name]
        for number, (cell, now) in enumerate(zip(code_cells(notebook), outputs)):
            varies = "varies" in cell["metadata"].get("tags", [])
            what = None if given.write or varies else difference(cell["outputs"], now)
            if what:
                failed = True
                print(f"{name}, code cell {number}: {what}", file=sys.stderr)
            cell["outputs"], cell["execution_count"] = now, number + 1
        if given.write:
            text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
            (ROOT / "notebooks" / f"{name}.ipynb").write_text(text)
        print(f"{name}: {len(outputs)} cells, {sum(map(len, outputs))} outputs{' written' if given.write else ''}")
    sys.exit("outputs changed; --write takes them over" if failed else 0)


if __name__ == "__main__":
    main()

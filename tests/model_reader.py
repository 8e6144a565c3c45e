"""Read models of Power BI with Microsoft's own library, and say as JSON what it says of each.

    .model-reader/bin/python tests/model_reader.py FOLDER...

A folder holds a model as TMDL (`model/retail_ci.SemanticModel/definition` of an export). For each,
the answer has the library's complaint, or null; the tables with their source columns; the measures
with two numbers as their formats show them; how many relationships there are; and the files that
the library would write otherwise. Exit code 1 if it complains or would write otherwise.
`make model-reader` makes the environment.
"""

import json
import sys
import sysconfig
import tempfile
from pathlib import Path

PACKAGES = Path(sysconfig.get_paths()["purelib"])
DOTNET = PACKAGES / "dnv/net/runtime/.net"
LIBRARY = PACKAGES / "sempy/lib"
NUMBERS = (5, -1234567.5)  # shown in the format of every measure


def load_library():
    """Start .NET and load Microsoft's library; neither of the two packages around them is
    imported.
    """
    import pythonnet
    from clr_loader import get_coreclr

    version = next((DOTNET / "shared/Microsoft.NETCore.App").iterdir()).name
    options = {
        "framework": {"name": "Microsoft.NETCore.App", "version": version},
        "configProperties": {"System.Globalization.Invariant": True},  # no ICU is needed
    }
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "runtimeconfig.json"
        config.write_text(json.dumps({"runtimeOptions": options}))
        pythonnet.load(get_coreclr(runtime_config=config, dotnet_root=DOTNET))
    import clr

    sys.path.append(str(LIBRARY))
    clr.AddReference("Microsoft.AnalysisServices.Tabular")
    from Microsoft.AnalysisServices import Tabular

    return Tabular


def texts(folder):
    """The TMDL files of a folder, but for empty lines at their ends."""
    files = Path(folder).rglob("*.tmdl")
    return {
        file.relative_to(folder).as_posix(): file.read_text("utf-8").rstrip("\n") for file in files
    }


def changed(tabular, database, folder):
    """The files that the library would write otherwise, or not at all."""
    with tempfile.TemporaryDirectory() as written:
        tabular.TmdlSerializer.SerializeDatabaseToFolder(database, written)
        ours = texts(folder)
        theirs = texts(written)
    return sorted(
        path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path)
    )


def read(tabular, folder):
    """What the library says of one model."""
    from System import Exception as DotnetException

    try:
        database = tabular.TmdlSerializer.DeserializeDatabaseFromFolder(str(folder))
        errors = [str(error.Message) for error in database.Model.Validate().Errors]
        if errors:
            return {"complaint": "\n".join(errors)}
        different = changed(tabular, database, folder)
    except DotnetException as error:
        return {"complaint": f"{error.GetType().Name}: {error.Message}"}
    tables = list(database.Model.Tables)
    return {
        "complaint": None,
        "tables": {table.Name: [c.SourceColumn for c in table.Columns] for table in tables},
        "measures": {m.Name: shown(m.FormatString) for table in tables for m in table.Measures},
        "relationships": database.Model.Relationships.Count,
        "changed": different,
    }


def shown(format_string):
    """`NUMBERS` as .NET writes them in a format; its custom formats are those of Power BI."""
    from System import Double
    from System.Globalization import CultureInfo

    return [Double(n).ToString(format_string, CultureInfo.InvariantCulture) for n in NUMBERS]


def main(folders):
    """Read every folder; the exit code."""
    missing = [folder for folder in folders if not Path(folder).is_dir()]
    if missing or not folders:
        print(f"Expected folders with TMDL files, found {missing or 'none'}.", file=sys.stderr)
        return 2
    if not DOTNET.is_dir() or not LIBRARY.is_dir():
        print(
            "Microsoft's library is not in this environment: `make model-reader`, then "
            ".model-reader/bin/python tests/model_reader.py FOLDER.",
            file=sys.stderr,
        )
        return 2
    tabular = load_library()
    answers = {folder: read(tabular, folder) for folder in folders}
    print(json.dumps(answers, indent=2))
    return int(any(answer["complaint"] or answer["changed"] for answer in answers.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What `rawpod get` prints."""

import json
import sys

from runtime.cli.client import Object
from runtime.cli.tables import TABLES, line, widths
from runtime.cli.targets import title


class Printer:
    """Prints objects as a table, as JSON, as YAML or by name."""

    def __init__(self, output: str | None, *, namespaces: bool) -> None:
        self._output, self._namespaces = output, namespaces
        self._table = output in (None, "wide")
        self._columns: list[int] = []
        self._printed = False

    def group(self, kind: str, items: list[Object], *, titles: bool) -> None:
        """The objects of one kind; other forms than tables wait for `finish`. `titles`: several kinds are printed."""
        if self._output == "name":
            for item in items:
                print(title(kind, item["metadata"]["name"]))
        elif self._table and items:
            if titles and self._printed:
                print()
            rows = [self._row(item, titles) for item in items]
            heading = TABLES[kind].headings(wide=self._output == "wide", namespaces=self._namespaces)
            columns = widths([heading, *rows])
            print("\n".join(line(row, columns) for row in (heading, *rows)))
            self._printed = True

    def _row(self, item: Object, prefixed: bool = False) -> list[str]:
        table = TABLES[item["kind"]]
        row = table.row(item, wide=self._output == "wide", namespaces=self._namespaces)
        if prefixed:
            column = 1 if self._namespaces else 0
            row[column] = title(item["kind"], row[column])
        return row

    def finish(self, items: list[Object], *, single: bool, where: str | None) -> None:
        """All objects together: one document for JSON and YAML, a word if there are none."""
        if self._output in ("json", "yaml"):
            whole = items[0] if single else {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items}
            self._document(whole)
        elif not items:
            print("no objects found" + (f' in namespace "{where}"' if where else ""), file=sys.stderr)

    def _document(self, item: Object) -> None:
        if self._output == "json":
            print(json.dumps(item, indent=4, ensure_ascii=False))
        else:
            print(to_yaml(item), end="")

    def stream(self, kind: str, items: list[Object]) -> None:
        """Objects of a watch, as they come: rows under one heading, JSON objects, YAML documents."""
        if not self._table:
            for item in items:
                if self._output == "name":
                    print(title(kind, item["metadata"]["name"]))
                else:
                    print("---\n" if self._output == "yaml" else "", end="")
                    self._document(item)
            # A reader at the other end of a pipe follows the watch as it goes.
            sys.stdout.flush()
            return
        rows = [self._row(item) for item in items]
        if not self._columns:
            heading = TABLES[kind].headings(wide=self._output == "wide", namespaces=self._namespaces)
            self._columns = widths([heading, *rows])
            print(line(heading, self._columns))
        for row in rows:
            # Columns only grow: what is printed already stays as it is.
            self._columns = [max(pair) for pair in zip(self._columns, map(len, row), strict=True)]
            print(line(row, self._columns))
        sys.stdout.flush()


def to_yaml(item: Object) -> str:
    """YAML that `rawpod apply` reads again; texts of several lines as blocks."""
    import yaml

    class Dumper(yaml.CSafeDumper):
        pass

    def text(dumper: yaml.CSafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    dumped: str = yaml.dump(item, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
    return dumped

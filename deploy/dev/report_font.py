"""Make the font of the PDF reports anew.

`uv run --no-project --with fonttools --with brotli deploy/dev/report_font.py NOTO_SANS NOTO_SANS_SC`, where the two are
unpacked npm packages @fontsource/noto-sans and @fontsource/noto-sans-sc. The regular weight of both becomes one
TrueType font: Latin, Greek and Cyrillic of the first, simplified Chinese of the second.
"""

import sys
from pathlib import Path

from fontTools import merge, subset, ttLib

PARTS = (
    (1, "noto-sans", ("latin", "latin-ext", "vietnamese", "greek", "cyrillic")),
    (2, "noto-sans-sc", ("latin", "chinese-simplified")),
)
FONT = Path(__file__).resolve().parents[2] / "gateway" / "report" / "fonts" / "NotoSansSC-Regular.ttf"
DROPPED = ["GSUB", "GPOS", "GDEF", "BASE", "STAT", "vhea", "vmtx", "DSIG", "fvar", "gvar", "HVAR", "VVAR", "MVAR"]


def main() -> None:
    """Keep outlines and character map of each part, merge, write."""
    parts = []
    for position, name, scripts in PARTS:
        folder = Path(sys.argv[position]) / "files"
        for script in scripts:
            font = ttLib.TTFont(folder / f"{name}-{script}-400-normal.woff2")
            cutter = subset.Subsetter(subset.Options(drop_tables=DROPPED, hinting=False, layout_features=[]))
            cutter.populate(unicodes=font.getBestCmap())
            cutter.subset(font)
            font.flavor = None
            parts.append(folder / f"{name}-{script}.ttf")
            font.save(parts[-1])
    merge.Merger().merge([str(part) for part in parts]).save(FONT)


if __name__ == "__main__":
    main()

"""Write src/torchshrink/report/vega.js: Vega, Vega-Lite and Vega-Embed as one script, as vl-convert bundles them.

The report carries this script, so that it opens anywhere without a network. It lies in the package, since the bundler
is a wheel of 33 MB and takes 4 seconds each time. To take newer versions: install a newer vl-convert-python, run this,
and look at a report.
"""

from pathlib import Path

import vl_convert

HEADER = (
    "/* Vega {vega}, Vega-Lite {lite}, Vega-Embed {embed}: BSD-3-Clause, (c) University of Washington Interactive Data "
    "Lab and contributors; https://vega.github.io. Bundled by vl-convert {convert}; scripts/vega_bundle.py */\n"
)


def bundle() -> str:
    """The script, with a comment that says what is in it."""
    header = HEADER.format(
        vega=vl_convert.get_vega_version(),
        lite=vl_convert.get_vegalite_versions()[-1],
        embed=vl_convert.get_vega_embed_version(),
        convert=vl_convert.__version__,
    )
    return header + vl_convert.javascript_bundle()


if __name__ == "__main__":
    target = Path(__file__).parents[1] / "src/torchshrink/report/vega.js"
    target.write_text(bundle(), encoding="utf-8")
    print(f"{target}: {target.stat().st_size:,} bytes")

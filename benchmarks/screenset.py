"""Pictures that are no photographs, made by a command and not stored: screenshots, charts, pages of text, drawings.

    python -m benchmarks.screenset --out FOLDER

Screenshots show this project's own pages in headless Chromium; the photographs on them are those of scikit-image.
What is drawn depends on the versions of Chromium, Matplotlib and the fonts, so compare codecs on one machine's set.
"""

from __future__ import annotations

import html
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import markdown
import matplotlib as mpl
import numpy as np
import skimage.data
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

ROOT = Path(__file__).parent.parent
SCREEN_PX = (1024, 704)
PAGE_PX = (620, 800)
FONTS = Path(mpl.get_data_path(), "fonts", "ttf")
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")
CHROMIUM = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
]
LIGHT = "body { font: 15px/1.5 'DejaVu Sans', sans-serif; margin: 24px 60px; color: #222; background: #fff }"
DARK = "body { font: 14px/1.5 'DejaVu Sans', sans-serif; margin: 24px 60px; color: #ddd; background: #16181d }"
SERIF = "body { font: 17px/1.6 'DejaVu Serif', serif; margin: 30px 140px; color: #111; background: #fbf7ee }"
TABLES = "table { border-collapse: collapse; font-size: 12px } td, th { border: 1px solid #8886; padding: 1px 7px }"
TERMINAL = "body { font: 13px/1.25 'DejaVu Sans Mono', monospace; margin: 8px; color: #cfc; background: #111 }"
GALLERY = "img { width: 300px; height: 250px; object-fit: cover; margin: 6px; border-radius: 6px }"


# Screenshots.


def document(name: str, css: str, start: str = "") -> str:
    """A page of a Markdown file, from a heading on."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = text[text.index(start) :] if start in text else text
    body = markdown.markdown(text, extensions=["tables", "fenced_code"])
    body = body.replace('src="benchmarks/', f'width="640" src="{ROOT.as_uri()}/benchmarks/')
    return f"<style>{css}{TABLES}</style>{body}"


def code(name: str, css: str, style: str) -> str:
    """A page of a source file, highlighted."""
    formatter = HtmlFormatter(style=style, full=False, linenos="table", noclasses=True)
    return f"<style>{css} pre {{ font: 13px/1.3 'DejaVu Sans Mono' }}</style>" + highlight(
        (ROOT / name).read_text(encoding="utf-8"), PythonLexer(), formatter
    )


def terminal(lines: str, css: str = TERMINAL) -> str:
    return f"<style>{css}</style><pre style='font: inherit; white-space: pre-wrap'>{html.escape(lines)}</pre>"


def listing() -> str:
    """What a long listing of the source files looks like."""
    files = sorted(path for folder in ("codec", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py"))
    rows = [f"-rw-r--r--  1 user  user {path.stat().st_size:8d}  {path.relative_to(ROOT)}" for path in files]
    return "user@machine:~/yoto-codec$ ls -lR\n" + "\n".join(rows[:52])


def hex_dump() -> str:
    data = next((ROOT / "tests" / "golden" / "v1").glob("colour.yoto")).read_bytes()
    rows = range(0, 16 * 50, 16)
    return "\n".join(
        f"{row:08x}  {data[row : row + 16].hex(' ', 1)}  |"
        + "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data[row : row + 16])
        + "|"
        for row in rows
    )


def gallery(folder: Path) -> str:
    images = "".join(f'<img src="{(folder / f"{name}.png").as_uri()}">' for name in PHOTOGRAPHS)
    return (
        f"<style>{LIGHT}{GALLERY}</style><h2>Pictures of scikit-image</h2>"
        f"{images}<p>{', '.join(PHOTOGRAPHS)}: a page with photographs, as albums and shops have them.</p>"
    )


def article(folder: Path) -> str:
    """A dark page with text around two photographs."""
    css = DARK + "img { float: right; width: 420px; margin: 0 0 12px 24px } p { margin: 8px 0 }"
    text = markdown.markdown((ROOT / "README.md").read_text(encoding="utf-8").split("## Use")[0])
    more = markdown.markdown((ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    images = [f'<img src="{(folder / f"{name}.png").as_uri()}">' for name in ("rocket", "coffee")]
    return f"<style>{css}</style>{images[0]}{text}{images[1]}{more}"


def editor(folder: Path) -> str:
    """A photograph in a program's window, panels around it."""
    css = LIGHT + (
        "body { margin: 0; background: #2b2b2f; color: #ccc; font-size: 12px }"
        "#a { display: flex; height: 704px } .p { width: 150px; padding: 8px; background: #38383e }"
        "#m { flex: 1; display: grid; place-items: center } i { display: block; height: 9px; margin: 4px 0 12px;"
        "background: linear-gradient(90deg, #111, #59f) } b { display: block; border-bottom: 1px solid #555 }"
    )
    names = [
        "Exposure",
        "Contrast",
        "Highlights",
        "Shadows",
        "Whites",
        "Blacks",
        "Clarity",
        "Vibrance",
        "Saturation",
        "Sharpness",
        "Noise",
    ]
    sliders = "".join(f"{name}<i></i>" for name in names)
    tools = "".join(
        f"<b>{name}</b>"
        for name in ["Move", "Crop", "Brush", "Eraser", "Text", "Lasso", "Wand", "Clone", "Gradient", "Zoom"]
    )
    photo = f'<img src="{(folder / "astronaut.png").as_uri()}">'
    return (
        f"<style>{css}</style><div id=a><div class=p>{tools}</div><div id=m>{photo}</div><div class=p>{sliders}</div>"
    )


def pages(folder: Path) -> dict[str, str]:
    """Names of screenshots, and the page of each."""
    demo = (ROOT / "codec" / "demo" / "static" / "index.html").read_text(encoding="utf-8")
    demo = demo.replace("<head>", f'<head><base href="{(ROOT / "codec" / "demo" / "static").as_uri()}/">')
    return {
        "readme": document("README.md", LIGHT),
        "results": document("README.md", LIGHT, "## Results"),
        "changelog-dark": document("CHANGELOG.md", DARK),
        "security-serif": document("SECURITY.md", SERIF),
        "code-light": code("codec/errors.py", LIGHT, "default"),
        "code-dark": code("codec/format/bitstream.py", DARK, "monokai"),
        "terminal": terminal(listing()),
        "hex-dump": terminal(hex_dump(), TERMINAL.replace("#cfc", "#000").replace("#111", "#fff")),
        "demo-page": demo,
        "gallery": gallery(folder),
        "article": article(folder),
        "editor": editor(folder),
    }


def screenshots() -> Iterator[tuple[str, Image.Image]]:
    browser = shutil.which("chromium")
    if browser is None:
        raise click.ClickException("Chromium is not installed (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for photograph in PHOTOGRAPHS:
            Image.fromarray(getattr(skimage.data, photograph)()).save(folder / f"{photograph}.png")
        for title, page in pages(folder).items():
            source, target = folder / f"{title}.html", folder / f"{title}-shot.png"
            source.write_text(f"<meta charset=utf-8>{page}" if "<!doctype" not in page else page, encoding="utf-8")
            size = "--window-size={},{}".format(*SCREEN_PX)
            options = [*CHROMIUM, size, f"--user-data-dir={folder / 'profile'}", f"--screenshot={target}"]
            subprocess.run([browser, *options, source.as_uri()], check=True, capture_output=True, timeout=120)
            yield f"screen-{title}", Image.open(target).convert("RGB")


# Charts.


def line_chart(figure: Figure, rng: np.random.Generator) -> None:
    axes = figure.add_subplot(title="Rate and distortion", xlabel="bits per pixel", ylabel="PSNR dB")
    x = np.linspace(0.05, 2, 60)
    for i in range(6):
        axes.plot(x, 27 + (6 + 0.4 * i) * np.log2(1 + 3 * x) / 1.6, marker=".", label=f"codec {i + 1}")
    axes.grid()
    axes.legend()


def bar_chart(figure: Figure, rng: np.random.Generator) -> None:
    axes = figure.add_subplot(title="Seconds by codec", ylabel="s")
    for i in range(3):
        axes.bar(
            np.arange(8) + 0.27 * i, rng.uniform(0.2, 3, 8), 0.25, label=f"{2**i} threads", hatch=(None, "/", "x")[i]
        )
    axes.legend()


def scatter_chart(figure: Figure, rng: np.random.Generator) -> None:
    axes = figure.add_subplot(title="Pictures")
    for i in range(4):
        x = rng.normal(i, 1, 150)
        axes.scatter(x, x + rng.normal(0, 1, 150), 20 * rng.uniform(0.3, 3, 150), alpha=0.5, label=f"set {i}")
    axes.legend()


def heat_map(figure: Figure, rng: np.random.Generator) -> None:
    axes = figure.add_subplot(title="Correlation of channels")
    values = np.corrcoef(rng.normal(size=(12, 20)))
    figure.colorbar(axes.imshow(values, cmap="viridis"))
    for (i, j), value in np.ndenumerate(values):
        axes.text(j, i, f"{value:.1f}", ha="center", va="center", color="w", fontsize=6)


def histogram_and_pie(figure: Figure, rng: np.random.Generator) -> None:
    left, right = figure.subplots(1, 2)
    left.hist([rng.normal(i, 1 + i, 800) for i in range(3)], bins=25, histtype="stepfilled", alpha=0.6)
    right.pie(rng.uniform(1, 4, 7), labels=list("ABCDEFG"), autopct="%.0f%%")


def surface(figure: Figure, rng: np.random.Generator) -> None:
    axes = figure.add_subplot(projection="3d", title="A surface")
    x, y = np.meshgrid(np.linspace(-4, 4, 50), np.linspace(-4, 4, 50))
    axes.plot_surface(x, y, np.sinc(np.hypot(x, y) / 2), cmap="plasma")


def charts() -> Iterator[tuple[str, Image.Image]]:
    for draw in (line_chart, bar_chart, scatter_chart, heat_map, histogram_and_pie, surface):
        figure = Figure(figsize=(7.2, 5.4), dpi=100)
        draw(figure, np.random.default_rng(0))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        yield (
            f"chart-{draw.__name__.replace('_', '-')}",
            Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"),
        )


# Pages of text.


def words() -> str:
    return " ".join((ROOT / "README.md").read_text(encoding="utf-8").split("## Results")[0].replace("#", "").split())


def lines(text: str, font: ImageFont.FreeTypeFont, width: int) -> Iterator[str]:
    """Break text into lines of a width, px."""
    line = ""
    for word in text.split():
        if line and font.getlength(f"{line} {word}") > width:
            yield line
            line = word
        else:
            line = f"{line} {word}".strip()
    yield line


def page(
    font: str, size: int, *, columns: int = 1, paper: str = "white", ink: str = "black", binary: bool = False
) -> Image.Image:
    """A page of text, anti-aliased or in pure black and white."""
    image = Image.new("1" if binary else "RGB", PAGE_PX, paper)
    draw, face, margin = ImageDraw.Draw(image), ImageFont.truetype(str(FONTS / f"{font}.ttf"), size), 40
    width = (PAGE_PX[0] - margin) // columns - margin
    rows = (PAGE_PX[1] - 2 * margin) // round(1.35 * size)
    for i, line in enumerate(lines(3 * words(), face, width)):
        column, row = divmod(i, rows)
        if column == columns:
            break
        draw.text((margin + column * (width + margin), margin + row * round(1.35 * size)), line, ink, face)
    return image.convert("RGB")


def scan() -> Image.Image:
    """A page that was printed, skewed and scanned."""
    skewed = page("STIXGeneral", 16).convert("L").rotate(0.7, Image.Resampling.BICUBIC, fillcolor=255)
    grey = np.asarray(skewed.filter(ImageFilter.GaussianBlur(0.7)), np.float64)
    shade = np.linspace(0.93, 1.0, grey.shape[1])
    noisy = 20 + 0.86 * grey * shade + np.random.default_rng(0).normal(0, 2.5, grey.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).convert("RGB")


def texts() -> Iterator[tuple[str, Image.Image]]:
    yield "text-serif", page("DejaVuSerif", 14)
    yield "text-columns", page("STIXGeneral", 12, columns=2)
    yield "text-binary", page("DejaVuSans", 13, binary=True)
    yield "text-mono-dark", page("DejaVuSansMono", 12, paper="#1e1e2e", ink="#cdd6f4")
    yield "text-large", page("cmr10", 30, paper="#fffbe8", ink="#203050")
    yield "text-scan", scan()


# Pixel art and line drawings.


def sprites() -> Image.Image:
    """Mirrored random creatures of 12 × 12 large pixels, each of few colours."""
    rng = np.random.default_rng(1)
    sheet = np.zeros((5 * 16, 7 * 16, 3), np.uint8) + np.array([40, 44, 52], np.uint8)
    for row in range(5):
        for column in range(7):
            half = rng.integers(0, 4, (12, 6))
            palette = np.vstack([[40, 44, 52], rng.integers(60, 256, (3, 3))]).astype(np.uint8)
            sheet[16 * row + 2 : 16 * row + 14, 16 * column + 2 : 16 * column + 14] = palette[
                np.hstack([half, half[:, ::-1]])
            ]
    return Image.fromarray(sheet).resize((7 * 16 * 6, 5 * 16 * 6), Image.Resampling.NEAREST)


def scenery() -> Image.Image:
    """A small landscape in 16 colours, not enlarged."""
    small = Image.fromarray(skimage.data.rocket()).resize((320, 214), Image.Resampling.BOX)
    return small.quantize(16, dither=Image.Dither.NONE).convert("RGB").resize((640, 428), Image.Resampling.NEAREST)


def dithered() -> Image.Image:
    return Image.fromarray(skimage.data.camera()).convert("1").convert("RGB")


def spirals() -> Image.Image:
    """Thin anti-aliased curves."""
    image = Image.new("L", (1280, 1280), 255)
    draw, t = ImageDraw.Draw(image), np.linspace(0, 60 * np.pi, 6000)
    for size, turn in ((600, 5 / 3), (400, 7 / 4), (220, 9 / 5)):
        x, y = 640 + size * np.cos(t) * np.cos(turn * t / 20), 640 + size * np.sin(t) * np.sin(turn * t / 19)
        draw.line(list(zip(x, y, strict=True)), 0, 2)
    return image.resize((640, 640), Image.Resampling.BOX).convert("RGB")


def engraving() -> Image.Image:
    """Lines whose thickness follows a photograph, in black and white."""
    grey = np.asarray(Image.fromarray(skimage.data.astronaut()).convert("L").resize((640, 640)), np.float64) / 255
    y, x = np.mgrid[:640, :640]
    wave = 0.5 + 0.5 * np.sin((y + 8 * np.sin(x / 60)) * 2 * np.pi / 7)
    return Image.fromarray(np.where(grey > wave, 255, 0).astype(np.uint8)).convert("RGB")


def cartoon() -> Image.Image:
    """Flat colours with dark outlines."""
    image, rng = Image.new("RGB", (1280, 960), "#a8d8f0"), np.random.default_rng(3)
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        x, y, r = rng.uniform(0, 1280), rng.uniform(200, 960), rng.uniform(30, 130)
        colour = tuple(int(c) for c in rng.integers(60, 250, 3))
        shape = draw.ellipse if rng.integers(2) else draw.rectangle
        shape([x - r, y - 0.7 * r, x + r, y + 0.7 * r], colour, "#222", 6)
    return image.resize((640, 480), Image.Resampling.BOX)


def drawings() -> Iterator[tuple[str, Image.Image]]:
    for draw in (sprites, scenery, dithered, spirals, engraving, cartoon):
        yield f"drawing-{draw.__name__}", draw()


GROUPS: tuple[Callable[[], Iterator[tuple[str, Image.Image]]], ...] = (screenshots, charts, texts, drawings)


def make(folder: Path) -> list[Path]:
    """Draw the whole set as PNG files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for group in GROUPS:
        for name, image in group():
            paths.append(folder / f"{name}.png")
            image.save(paths[-1])
    return paths


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to draw into.")
def main(out: Path) -> None:
    """Draw 30 pictures that are no photographs."""
    click.echo(f"{len(make(out))} pictures in {out}")


if __name__ == "__main__":
    main()

"""The same ten pictures on a wiki of any language, each named and described in the words of that language.

The words are MediaWiki's own and those of its users; the tests' other half, what must come out, is `expected`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mediawiki.sample import draw_files
from mediawiki.wiki import Op

NUM_PICTURES = 10


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What an editor of that language writes."""

    file: str
    other_file: str
    """Another name of the namespace."""
    thumb: str
    right: str
    upright: str
    centre: str
    frame: str
    none: str
    width: str
    alt: str
    link: str
    no_contents: str
    page_name: str
    licence_heading: str
    licence_text: str
    licence: str
    """A template."""
    template: str
    description: str
    infobox: str
    image_field: str
    hat: tuple[str, str]
    caption: str
    alt_text: str


@dataclass(frozen=True, slots=True)
class Expected:
    """What the catalogue says of one picture; `captions` are those of thumbs and galleries."""

    captions: tuple[str, ...] = ()
    alts: tuple[str, ...] = ()
    licence: str | None = None
    summary: str = ""
    attributes: tuple[tuple[str, str], ...] = ()


VOCABULARIES = {
    "de": Vocabulary(
        *("Datei", "Bild", "mini", "rechts", "hochkant=1.5", "zentriert", "gerahmt", "ohne", "200px"),
        *("alternativtext", "verweis", "__KEIN_INHALTSVERZEICHNIS__", "SEITENNAME", "Lizenz"),
        *("Dieses Bild ist urheberrechtlich geschützt.", "Bild-GFDL", "Vorlage", "Beschreibung", "Steckbrief", "Bild"),
        *(("Hut", "rot"), "Ada mit einem roten Hut", "Ein blauer Mantel"),
    ),
    "fr": Vocabulary(
        *("Fichier", "Image", "vignette", "droite", "redresse=1.5", "centré", "cadre", "néant", "200px"),
        *("alt", "lien", "__AUCUNSOMMAIRE__", "NOMPAGE", "Conditions d'utilisation"),
        *("Cette image est protégée.", "Usage loyal", "Modèle", "Description", "Fiche", "portrait"),
        *(("Chapeau", "rouge"), "Ada dans la forêt", "Un manteau bleu"),
    ),
    "es": Vocabulary(
        *("Archivo", "Imagen", "miniaturadeimagen", "derecha", "upright=1.5", "centro", "marco", "ninguna", "200px"),
        *("alt", "enlace", "__SIN_TDC__", "NOMBREDEPAGINA", "Licencia"),
        *("Esta imagen tiene derechos de autor.", "Uso justo", "Plantilla", "Descripción", "Ficha", "imagen"),
        *(("Sombrero", "rojo"), "Ada en el bosque", "Un abrigo azul"),
    ),
    "ja": Vocabulary(
        *("ファイル", "画像", "サムネイル", "右", "右上", "中央", "フレーム", "なし", "200ピクセル"),
        *("代替文", "リンク", "__目次非表示__", "ページ名", "ライセンス"),
        *("この画像は著作権で保護されています。", "フェアユース", "テンプレート", "解説", "キャラクター", "画像"),
        *(("帽子", "赤"), "森のエイダ", "青いコート"),
    ),
    "zh-hans": Vocabulary(
        *("文件", "图像", "缩略图", "右", "右上1.5", "居中", "有框", "无", "200像素"),
        *("替代文本", "链接", "__无目录__", "页名", "许可协议"),
        *("此图片受版权保护。", "合理使用", "模板", "描述", "角色信息", "图片"),
        *(("帽子", "红"), "森林里的艾达", "蓝外套"),
    ),
    "ru": Vocabulary(
        *("Файл", "Изображение", "мини", "справа", "сверхусправа=1.5", "центр", "обрамить", "без", "200пкс"),
        *("альт", "ссылка", "__БЕЗ_ОГЛАВЛЕНИЯ__", "НАЗВАНИЕ_СТРАНИЦЫ", "Лицензирование"),
        *("Изображение защищено.", "Добросовестное использование", "Шаблон", "Описание", "Карточка", "картинка"),
        *(("Шляпа", "красная"), "Ада в лесу", "Синее пальто"),
    ),
    "he": Vocabulary(
        *("קובץ", "תמונה", "ממוזער", "ימין", "ימין למעלה=1.5", "מרכז", "מסגרת", "ללא", "200 פיקסלים"),
        *("טקסט", "קישור", "__ללא_תוכן_עניינים__", "שם הדף", "רישיון"),
        *("התמונה מוגנת.", "שימוש הוגן", "תבנית", "תיאור", "דמות", "תמונה"),
        *(("כובע", "אדום"), "עדה ביער", "מעיל כחול"),
    ),
    "tr": Vocabulary(
        *("Dosya", "Resim", "küçükresim", "sağ", "dikey=1.5", "orta", "çerçeve", "yok", "200piksel"),
        *("alt", "bağlantı", "__İÇİNDEKİLERYOK__", "SAYFAADI", "Lisanslama"),
        *("Bu resim korunmaktadır.", "Adil kullanım", "Şablon", "Açıklama", "Kişi", "resim"),
        *(("Şapka", "kırmızı"), "Ada ormanda", "Mavi palto"),
    ),
}


def name(number: int) -> str:
    return f"Kid-{number:03d}.png"


def language_ops(folder: Path, words: Vocabulary) -> list[Op]:
    """Draw the pictures into `folder` and give the operations that build the wiki."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_files(folder, NUM_PICTURES)
    licensing = f"== {words.licence_heading} ==\n{words.licence_text}\n{{{{{words.template}:{words.licence}}}}}"
    file_pages = {
        7: licensing,
        8: f"{{{{Information|{words.description}={words.caption}|x=y}}}}\n{licensing}",
        9: f"{words.no_contents}\n{words.caption}\n\n{licensing}",
    }
    article = f"""{{{{{words.infobox}|{words.image_field}={name(6)}|{words.hat[0]}={words.hat[1]}}}}}
'''{{{{{words.page_name}}}}}'''. {words.no_contents}
[[{words.file}:{name(0)}|{words.thumb}|{words.right}|{words.caption}]]
[[{words.other_file}:{name(1)}|{words.caption}|{words.thumb}|{words.upright}|{words.width}]]
[[{words.file}:{name(2)}|{words.thumb}|{words.centre}|{words.alt}={words.alt_text}|{words.link}=Ada]]
[[{words.file}:{name(3)}|{words.frame}|{words.none}|{words.width}]]
[[File:{name(4)}|thumb|left|upright 0.8|{words.caption}]]
<gallery>
{name(5)}|{words.caption}|{words.link}=Ada
{words.file}:{name(9)}|{words.alt}={words.alt_text}
</gallery>"""
    uploads: list[Op] = [
        {"op": "upload", "name": name(number), "src": str(folder / name(number)), "text": file_pages.get(number, "")}
        for number in range(NUM_PICTURES)
    ]
    return [*uploads, {"op": "edit", "title": "Ada", "text": article}]


def expected(words: Vocabulary) -> dict[str, Expected]:
    """What the catalogue must say of each picture, by name."""
    captioned = Expected(captions=(words.caption,))
    licensed = Expected(licence=words.licence, summary=words.caption)
    rows = {
        0: captioned,
        1: captioned,
        2: Expected(alts=(words.alt_text,)),
        3: Expected(),
        4: captioned,
        5: captioned,
        6: Expected(attributes=((words.hat[0].casefold(), words.hat[1]),)),
        7: Expected(licence=words.licence),
        8: licensed,
        9: Expected(alts=(words.alt_text,), licence=words.licence, summary=words.caption),
    }
    return {name(number): row for number, row in rows.items()}

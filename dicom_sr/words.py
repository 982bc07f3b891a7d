"""Every sentence that the node itself writes into results, in every language of `Language`.

What a pipeline says (labels, notes, codes) is another matter: `terms` knows the common ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from node.domain.model import Qualification
from node.domain.profile import Language


@dataclass(frozen=True)
class Words:
    """One language. What stands in braces is filled in by ``str.format``."""

    language: Language
    name: str  # of the language itself, CodeMeaning of its RFC 5646 code
    comma: str  # of decimal numbers
    hounsfield: str  # short for the unit
    research: str
    service: str
    not_for_diagnosis: str
    research_statement: str  # a whole sentence, for documents
    overlay: str
    segments: str
    report: str
    marks: str
    document: str
    map: str
    map_in_pictures: str
    map_left_out: str
    key_images: str
    key_images_text: str  # {model}
    none_found: str  # of one finding
    nothing_found: str  # of all
    not_negative: str
    more: str  # {count}
    page: str  # {page}, {pages}
    image: str
    model: str
    analysed: str
    date: str
    node: str
    procedure: str
    study: str
    whole_study: str
    not_run_title: str
    not_run_short: str  # after "AI", in descriptions
    not_run: str  # {model}
    refused: str
    failed: str
    timed_out: str
    reason: str
    rejection: str  # {model}, {reason}
    superseded: str
    other_identity: str

    def number(self, value: float, digits: int) -> str:
        """``value`` with ``digits`` decimals, as this language writes it."""
        return f"{value:.{max(digits, 0)}f}".replace(".", self.comma)

    def banner(self, qualification: Qualification) -> str | None:
        """What every picture says while the model is no product, None where it is one."""
        if qualification is Qualification.PRODUCT:
            return None
        word = self.research if qualification is Qualification.RESEARCH else self.service
        return f"{word} - {self.not_for_diagnosis}"


_ENGLISH = Words(
    language=Language.ENGLISH,
    name="English",
    comma=".",
    hounsfield="HU",
    research="RESEARCH",
    service="SERVICE",
    not_for_diagnosis="not for diagnostic use",
    research_statement="Research result. Not for diagnostic use.",
    overlay="Overlay",
    segments="Segments",
    report="Report",
    marks="Marks",
    document="Document",
    map="Map",
    map_in_pictures="in the pictures only",
    map_left_out="not among these results",
    key_images="Key images",
    key_images_text="Images on which the findings of {model} are largest. Chosen by an algorithm.",
    none_found="none found",
    nothing_found="Nothing was found.",
    not_negative="This does not exclude a disease.",
    more="and {count} more",
    page="Page {page} of {pages}",
    image="Image",
    model="Model",
    analysed="Analysed",
    date="Date",
    node="Node",
    procedure="Procedure",
    study="Study",
    whole_study="Whole study",
    not_run_title="AI did not run",
    not_run_short="did not run",
    not_run="{model} gave no result for this study. No finding must be concluded from this.",
    refused="The study is not one for this model.",
    failed="The analysis failed.",
    timed_out="The analysis took longer than it may.",
    reason="Reason",
    rejection="Results of {model} are withdrawn: {reason}",
    superseded="newer results replace them.",
    other_identity="they carry an identity that was corrected since.",
)

_GERMAN = Words(
    language=Language.GERMAN,
    name="Deutsch",
    comma=",",
    hounsfield="HU",
    research="FORSCHUNG",
    service="WARTUNG",
    not_for_diagnosis="nicht für diagnostische Zwecke",
    research_statement="Forschungsergebnis. Nicht für diagnostische Zwecke.",
    overlay="Überlagerung",
    segments="Segmente",
    report="Bericht",
    marks="Markierungen",
    document="Dokument",
    map="Karte",
    map_in_pictures="nur in den Bildern",
    map_left_out="nicht unter diesen Ergebnissen",
    key_images="Schlüsselbilder",
    key_images_text="Bilder, auf denen die Befunde von {model} am größten sind. Von einem Algorithmus ausgewählt.",
    none_found="nicht gefunden",
    nothing_found="Es wurde nichts gefunden.",
    not_negative="Das schließt eine Erkrankung nicht aus.",
    more="und {count} weitere",
    page="Seite {page} von {pages}",
    image="Bild",
    model="Modell",
    analysed="Analysiert",
    date="Datum",
    node="Knoten",
    procedure="Untersuchung",
    study="Studie",
    whole_study="Gesamte Studie",
    not_run_title="KI lief nicht",
    not_run_short="nicht gelaufen",
    not_run="{model} hat zu dieser Studie kein Ergebnis geliefert. Daraus darf kein Befund abgeleitet werden.",
    refused="Die Studie ist für dieses Modell nicht geeignet.",
    failed="Die Analyse ist fehlgeschlagen.",
    timed_out="Die Analyse dauerte länger als erlaubt.",
    reason="Grund",
    rejection="Ergebnisse von {model} sind zurückgezogen: {reason}",
    superseded="neuere Ergebnisse ersetzen sie.",
    other_identity="sie tragen eine inzwischen berichtigte Identität.",
)

_FRENCH = Words(
    language=Language.FRENCH,
    name="français",
    comma=",",
    hounsfield="UH",
    research="RECHERCHE",
    service="MAINTENANCE",
    not_for_diagnosis="ne pas utiliser pour le diagnostic",
    research_statement="Résultat de recherche. Ne pas utiliser pour le diagnostic.",
    overlay="Superposition",
    segments="Segments",
    report="Rapport",
    marks="Marques",
    document="Document",
    map="Carte",
    map_in_pictures="dans les images seulement",
    map_left_out="pas parmi ces résultats",
    key_images="Images clés",
    key_images_text="Images où les résultats de {model} sont les plus étendus. Choisies par un algorithme.",
    none_found="non trouvé",
    nothing_found="Rien n'a été trouvé.",
    not_negative="Cela n'exclut pas une maladie.",
    more="et {count} de plus",
    page="Page {page} sur {pages}",
    image="Image",
    model="Modèle",
    analysed="Analysé",
    date="Date",
    node="Nœud",
    procedure="Examen",
    study="Étude",
    whole_study="Étude entière",
    not_run_title="IA non exécutée",
    not_run_short="non exécutée",
    not_run="{model} n'a donné aucun résultat pour cet examen. Il ne faut en tirer aucune conclusion.",
    refused="L'examen ne convient pas à ce modèle.",
    failed="L'analyse a échoué.",
    timed_out="L'analyse a dépassé la durée permise.",
    reason="Motif",
    rejection="Les résultats de {model} sont retirés : {reason}",
    superseded="des résultats plus récents les remplacent.",
    other_identity="ils portent une identité corrigée depuis.",
)

_SPANISH = Words(
    language=Language.SPANISH,
    name="español",
    comma=",",
    hounsfield="UH",
    research="INVESTIGACIÓN",
    service="MANTENIMIENTO",
    not_for_diagnosis="no apto para diagnóstico",
    research_statement="Resultado de investigación. No apto para uso diagnóstico.",
    overlay="Superposición",
    segments="Segmentos",
    report="Informe",
    marks="Marcas",
    document="Documento",
    map="Mapa",
    map_in_pictures="solo en las imágenes",
    map_left_out="no incluido en estos resultados",
    key_images="Imágenes clave",
    key_images_text="Imágenes en las que los hallazgos de {model} son mayores. Elegidas por un algoritmo.",
    none_found="no encontrado",
    nothing_found="No se encontró nada.",
    not_negative="Esto no excluye una enfermedad.",
    more="y {count} más",
    page="Página {page} de {pages}",
    image="Imagen",
    model="Modelo",
    analysed="Analizado",
    date="Fecha",
    node="Nodo",
    procedure="Exploración",
    study="Estudio",
    whole_study="Estudio completo",
    not_run_title="IA no ejecutada",
    not_run_short="no ejecutada",
    not_run="{model} no dio ningún resultado para este estudio. No debe deducirse de ello ningún hallazgo.",
    refused="El estudio no es adecuado para este modelo.",
    failed="El análisis falló.",
    timed_out="El análisis superó el tiempo permitido.",
    reason="Motivo",
    rejection="Se retiran los resultados de {model}: {reason}",
    superseded="los sustituyen resultados más recientes.",
    other_identity="llevan una identidad corregida desde entonces.",
)

_CATALOGUE: Mapping[Language, Words] = {w.language: w for w in (_ENGLISH, _GERMAN, _FRENCH, _SPANISH)}


def words(language: Language) -> Words:
    """The sentences in ``language``."""
    return _CATALOGUE[language]

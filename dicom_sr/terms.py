"""What codes and labels are called in other languages. A code keeps its value: only its CodeMeaning is translated."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace

from pydicom.dataset import Dataset

from node.domain.finding import Code, Evaluation, Findings, Map, Mark, Measurement, Region
from node.domain.profile import Language

# Coding scheme, code value: German, French, Spanish. At most 64 characters each (VR LO).
_CODES: Mapping[tuple[str, str], tuple[str, str, str]] = {
    # Measurements, and how they were made
    ("SCT", "118565006"): ("Volumen", "Volume", "Volumen"),
    ("SCT", "410668003"): ("Länge", "Longueur", "Longitud"),
    ("SCT", "103339001"): ("Längste Achse", "Grand axe", "Eje mayor"),
    ("SCT", "103340004"): ("Kurze Achse", "Petit axe", "Eje menor"),
    ("SCT", "42798000"): ("Fläche", "Surface", "Área"),
    ("SCT", "81827009"): ("Durchmesser", "Diamètre", "Diámetro"),
    ("DCM", "112031"): ("Schwächungskoeffizient", "Coefficient d'atténuation", "Coeficiente de atenuación"),
    ("DCM", "112181"): (
        "Mittlerer Schwächungskoeffizient",
        "Coefficient d'atténuation moyen",
        "Coeficiente de atenuación medio",
    ),
    ("DCM", "110852"): ("MR-Signalintensität", "Intensité du signal IRM", "Intensidad de señal de RM"),
    ("DCM", "126030"): (
        "Summe der segmentierten Voxel",
        "Somme des voxels segmentés",
        "Suma de los vóxeles segmentados",
    ),
    ("DCM", "111012"): ("Sicherheit des Befundes", "Certitude du résultat", "Certeza del hallazgo"),
    ("SCT", "373098007"): ("Mittelwert", "Moyenne", "Media"),
    ("SCT", "56851009"): ("Maximum", "Maximum", "Máximo"),
    ("SCT", "255605001"): ("Minimum", "Minimum", "Mínimo"),
    ("SCT", "386136009"): ("Standardabweichung", "Écart type", "Desviación estándar"),
    ("99AINODE", "COMPONENTS"): ("Anzahl getrennter Teile", "Nombre de parties séparées", "Número de partes separadas"),
    ("99AINODE", "LAA-950"): ("LAA-950 (unter -950 HU)", "LAA-950 (sous -950 UH)", "LAA-950 (bajo -950 UH)"),
    ("99AINODE", "PERC15"): ("Perc15 (15. Perzentil)", "Perc15 (15e percentile)", "Perc15 (percentil 15)"),
    ("99AINODE", "PIXELVALUE"): ("Pixelwert", "Valeur de pixel", "Valor de píxel"),
    ("99AINODE", "CLASS"): ("Klassifikation", "Classification", "Clasificación"),
    ("99AINODE", "PROBABILITY"): ("Wahrscheinlichkeit", "Probabilité", "Probabilidad"),
    # Statements
    ("99AINODE", "LUNGS-WHOLE"): (
        "Lungen vollständig erfasst",
        "Poumons entièrement dans l'acquisition",
        "Pulmones enteros en la exploración",
    ),
    ("99AINODE", "THIN-SLICES"): (
        "Schichtabstand höchstens 1,5 mm, wie für LAA-950 verlangt",
        "Coupes espacées de 1,5 mm au plus, comme l'exige LAA-950",
        "Cortes a 1,5 mm como máximo, como pide LAA-950",
    ),
    ("99AINODE", "ASYMMETRY"): (
        "Deutliche Asymmetrie des belüfteten Lungenvolumens",
        "Asymétrie marquée du volume pulmonaire aéré",
        "Asimetría marcada del volumen pulmonar aireado",
    ),
    ("SCT", "373066001"): ("Ja", "Oui", "Sí"),
    ("SCT", "373067005"): ("Nein", "Non", "No"),
    # Anatomy and what is found in it
    ("SCT", "7771000"): ("Links", "Gauche", "Izquierdo"),
    ("SCT", "24028007"): ("Rechts", "Droite", "Derecho"),
    ("SCT", "51440002"): ("Beidseitig", "Bilatéral", "Bilateral"),
    ("SCT", "39607008"): ("Lunge", "Poumon", "Pulmón"),
    ("SCT", "10200004"): ("Leber", "Foie", "Hígado"),
    ("SCT", "78961009"): ("Milz", "Rate", "Bazo"),
    ("SCT", "64033007"): ("Niere", "Rein", "Riñón"),
    ("SCT", "15776009"): ("Bauchspeicheldrüse", "Pancréas", "Páncreas"),
    ("SCT", "12738006"): ("Gehirn", "Encéphale", "Encéfalo"),
    ("SCT", "80891009"): ("Herz", "Cœur", "Corazón"),
    ("SCT", "38866009"): ("Körperteil", "Partie du corps", "Parte del cuerpo"),
    ("SCT", "27925004"): ("Knoten", "Nodule", "Nódulo"),
    ("SCT", "4147007"): ("Raumforderung", "Masse", "Masa"),
    ("SCT", "52988006"): ("Läsion", "Lésion", "Lesión"),
    ("DCM", "112084"): ("Aufhellung", "Hyperclarté", "Hiperlucencia"),
    ("SCT", "91723000"): ("Anatomische Struktur", "Structure anatomique", "Estructura anatómica"),
    ("SCT", "123037004"): ("Anatomische Struktur", "Structure anatomique", "Estructura anatómica"),
    ("SCT", "49755003"): (
        "Krankhaft veränderte Struktur",
        "Structure morphologiquement anormale",
        "Estructura morfológicamente anormal",
    ),
    # Procedures
    ("LN", "25045-6"): (
        "CT, Körperregion nicht angegeben",
        "TDM, région du corps non précisée",
        "TC, región del cuerpo no especificada",
    ),
    # Units
    ("UCUM", "ml"): ("Milliliter", "millilitre", "mililitro"),
    ("UCUM", "mm"): ("Millimeter", "millimètre", "milímetro"),
    ("UCUM", "mm2"): ("Quadratmillimeter", "millimètre carré", "milímetro cuadrado"),
    ("UCUM", "%"): ("Prozent", "pour cent", "por ciento"),
    ("UCUM", "1"): ("ohne Einheit", "sans unité", "sin unidad"),
    ("UCUM", "[hnsf'U]"): ("Hounsfield-Einheit", "unité Hounsfield", "unidad Hounsfield"),
    # Templates of reports (PS3.16)
    ("DCM", "126000"): ("Messbericht der Bildgebung", "Rapport de mesures d'imagerie", "Informe de medidas de imagen"),
    ("DCM", "126010"): ("Messungen", "Mesures d'imagerie", "Medidas de imagen"),
    ("DCM", "125007"): ("Messgruppe", "Groupe de mesures", "Grupo de medidas"),
    ("DCM", "121071"): ("Befund", "Résultat", "Hallazgo"),
    ("DCM", "121070"): ("Befunde", "Résultats", "Hallazgos"),
    ("DCM", "121106"): ("Kommentar", "Commentaire", "Comentario"),
    ("DCM", "121058"): ("Befundete Untersuchung", "Examen interprété", "Exploración informada"),
    ("DCM", "121049"): ("Sprache des Inhalts", "Langue du contenu", "Idioma del contenido"),
    ("DCM", "121005"): ("Art des Beobachters", "Type d'observateur", "Tipo de observador"),
    ("DCM", "121007"): ("Gerät", "Appareil", "Dispositivo"),
    ("DCM", "112039"): ("Bezeichnung", "Identifiant de suivi", "Identificador de seguimiento"),
    ("DCM", "111001"): ("Name des Algorithmus", "Nom de l'algorithme", "Nombre del algoritmo"),
    ("DCM", "111003"): ("Version des Algorithmus", "Version de l'algorithme", "Versión del algoritmo"),
    ("DCM", "111028"): ("Bildverzeichnis", "Bibliothèque d'images", "Biblioteca de imágenes"),
    ("DCM", "121401"): ("Ableitung", "Dérivation", "Derivación"),
    ("SCT", "363698007"): ("Befundort", "Localisation", "Localización"),
    ("SCT", "370129005"): ("Messverfahren", "Méthode de mesure", "Método de medida"),
    ("SCT", "272741003"): ("Seite", "Latéralité", "Lateralidad"),
    ("UMLS", "C0034375"): ("Qualitative Aussagen", "Évaluations qualitatives", "Evaluaciones cualitativas"),
    ("DCM", "113000"): ("Von Interesse", "D'intérêt", "De interés"),
    ("DCM", "113012"): ("Beschreibung", "Description", "Descripción"),
    ("DCM", "113001"): ("Aus Qualitätsgründen verworfen", "Rejeté pour qualité", "Rechazado por calidad"),
    ("DCM", "113038"): (
        "Falscher Eintrag der Arbeitsliste",
        "Entrée de liste de travail incorrecte",
        "Entrada incorrecta de la lista de trabajo",
    ),
}

# Labels and titles of the pipelines that come with the node.
_LABELS: Mapping[str, tuple[str, str, str]] = {
    "CT lung densitometry": ("CT-Lungendensitometrie", "Densitométrie pulmonaire TDM", "Densitometría pulmonar por TC"),
    "Lungs": ("Lungen", "Poumons", "Pulmones"),
    "Left lung": ("Linke Lunge", "Poumon gauche", "Pulmón izquierdo"),
    "Right lung": ("Rechte Lunge", "Poumon droit", "Pulmón derecho"),
    "Low attenuation (below -950 HU)": (
        "Geringe Dichte (unter -950 HU)",
        "Faible densité (sous -950 UH)",
        "Baja atenuación (bajo -950 UH)",
    ),
}
_ORDER = (Language.GERMAN, Language.FRENCH, Language.SPANISH)


def translated(code: Code, language: Language) -> Code:
    """``code`` with its meaning in ``language``, where that is known."""
    known = _CODES.get((code.scheme, code.value))
    return code if known is None or language not in _ORDER else replace(code, meaning=known[_ORDER.index(language)])


def label(text: str, language: Language) -> str:
    """A label or title of a pipeline in ``language``, where that is known."""
    known = _LABELS.get(text)
    return text if known is None or language not in _ORDER else known[_ORDER.index(language)]


def speak(dataset: Dataset, language: Language, but: Set[tuple[str, str]] = frozenset()) -> None:
    """Write the CodeMeaning of every known code in ``dataset``, of every depth, in ``language``.

    Args:
        but: scheme and value of codes that stay as they are.
    """
    if language not in _ORDER:
        return
    for element in dataset:
        if element.VR != "SQ":
            continue
        for item in element.value:
            if "CodeMeaning" in item:
                code = str(item.get("CodingSchemeDesignator")), str(item.get("CodeValue"))
                known = _CODES.get(code)
                if known is not None and code not in but:
                    # Anew, as the element may be that of another object, too.
                    item.add_new("CodeMeaning", "LO", known[_ORDER.index(language)])
            speak(item, language, but)


def localised(findings: Findings, language: Language) -> Findings:
    """``findings`` with every known code and label in ``language``. Keys, values and places stay as they are."""
    if language not in _ORDER:
        return findings

    def measured(found: tuple[Measurement, ...]) -> tuple[Measurement, ...]:
        return tuple(
            replace(
                m,
                name=translated(m.name, language),
                method=m.method and translated(m.method, language),
                derivation=m.derivation and translated(m.derivation, language),
            )
            for m in found
        )

    def evaluated(found: tuple[Evaluation, ...]) -> tuple[Evaluation, ...]:
        return tuple(Evaluation(translated(e.name, language), translated(e.value, language)) for e in found)

    def said(found: Region | Mark) -> dict[str, object]:
        return {
            "label": label(found.label, language),
            "measurements": measured(found.measurements),
            "evaluations": evaluated(found.evaluations),
        }

    def shown(found: Map) -> Map:
        return replace(found, label=label(found.label, language), quantity=translated(found.quantity, language))

    return replace(
        findings,
        procedure=translated(findings.procedure, language),
        title=label(findings.title, language),
        regions=tuple(replace(r, **said(r)) for r in findings.regions),  # type: ignore[arg-type]
        marks=tuple(replace(m, **said(m)) for m in findings.marks),  # type: ignore[arg-type]
        maps=tuple(shown(m) for m in findings.maps),
        measurements=measured(findings.measurements),
        evaluations=evaluated(findings.evaluations),
    )

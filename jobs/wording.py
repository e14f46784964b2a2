"""What the figures of an evaluation say, in English and in Chinese: sentences, names of models and metrics, numbers.

Takes documents as docs/evaluation.md describes them and gives plain text; knows nothing of HTML or screens, and counts
nothing itself.  Cheap to import.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Lang = Literal["en", "zh"]
LANGUAGES: tuple[Lang, ...] = ("en", "zh")
NONE = "–"
MAX_LABEL_CHARS = 60


@dataclass(frozen=True)
class Metric:
    """A metric's name and what it means in one line; `share` where it is written in per cent."""

    en: str
    zh: str
    means_en: str
    means_zh: str
    share: bool = False

    def name(self, lang: Lang) -> str:
        return self.zh if lang == "zh" else self.en

    def means(self, lang: Lang) -> str:
        return self.means_zh if lang == "zh" else self.means_en


METRICS: dict[str, Metric] = {
    "accuracy": Metric("Accuracy", "准确率", "share of the rows that are labelled correctly", "判对的行所占比例", True),
    "balanced_accuracy": Metric(
        "Balanced acc.",
        "平衡准确率",
        "mean of the labels' recalls; an equal weight for a rare label",
        "各标签召回率的平均，稀少的标签同样重要",
    ),
    "precision": Metric(
        "Precision",
        "精确率",
        "of the rows that got the label, the share that has it",
        "被判为该标签的行中，真正是的比例",
    ),
    "recall": Metric(
        "Recall",
        "召回率",
        "of the rows that have the label, the share that got it",
        "真正属于该标签的行中，被找出的比例",
    ),
    "f1": Metric("F1", "F1", "harmonic mean of precision and recall", "精确率与召回率的调和平均"),
    "specificity": Metric(
        "Specificity",
        "特异度",
        "of the rows of the other label, the share that was left alone",
        "属于另一标签的行中，没有被误判的比例",
    ),
    "mcc": Metric(
        "MCC",
        "MCC",
        "correlation of what is true and what is said: 0 is chance, 1 perfect",
        "真实标签与判断的相关系数：0 等于乱猜，1 为完美",
    ),
    "auc_roc": Metric(
        "AUC-ROC",
        "AUC-ROC",
        "how often a positive row scores above a negative one; 0.5 is guessing",
        "正例得分高于负例的概率；0.5 等于乱猜",
    ),
    "auc_pr": Metric(
        "AUC-PR",
        "AUC-PR",
        "average precision over all thresholds; guessing gives the share of positive rows",
        "所有阈值上的平均精确率；乱猜等于正例所占比例",
    ),
    "predicted_positive_rate": Metric(
        "Said positive", "判为正例", "share of the rows that got the positive label", "被判为正例的行所占比例", True
    ),
    "ece": Metric(
        "ECE",
        "ECE",
        "how far confidence and accuracy lie apart (top label, 15 bins); 0 is best",
        "置信度与准确率的差距（最大概率标签，15 个分箱）；0 最好",
    ),
    "ece_equal_mass": Metric(
        "ECE, equal mass",
        "等频 ECE",
        "the same with 15 bins of equally many rows",
        "同上，但 15 个分箱的行数相等",
    ),
    "ece_class": Metric(
        "Class ECE",
        "类别 ECE",
        "P(label) against how often the label is true",
        "标签概率与该标签真实频率的差距",
    ),
    "ece_artifact": Metric(
        "P(positive) against correctness",
        "P(正例) 对判断正确",
        "not a calibration error; printed because others print it",
        "不是校准误差；列出只因别处常见",
    ),
    "brier": Metric(
        "Brier", "Brier", "mean squared error of the probabilities; lower is better", "概率的均方误差；越低越好"
    ),
    "nll": Metric(
        "NLL",
        "NLL",
        "mean of -ln P(true label); punishes being sure and wrong; lower is better",
        "真实标签概率的负对数的平均；又自信又错代价最大；越低越好",
    ),
    "aurc": Metric(
        "AURC",
        "AURC",
        "mean error over all shares of rows, the most confident first; lower is better",
        "按置信度由高到低作答时错误率的平均；越低越好",
    ),
    "coverage_at_1_risk": Metric(
        "Coverage at 1 % risk",
        "1% 风险下的覆盖率",
        "share of the rows, the most confident first, that can be answered with at most 1 % errors",
        "按置信度由高到低，错误不超过 1% 时能作答的行所占比例",
        True,
    ),
}

_TITLES_ZH = {
    "majority": "多数类",
    "frozen_head": "冻结底座 + 训练的分类头",
    "tfidf": "TF-IDF（字符 1-3）+ 逻辑回归",
    "lora": "LoRA 适配器",
}
_NAMES = {
    "majority": ("The majority class", "多数类"),
    "frozen_head": ("The frozen base with a trained head", "冻结底座加训练的分类头"),
    "tfidf": ("TF-IDF with logistic regression", "TF-IDF 加逻辑回归"),
    "lora": ("The LoRA adapter", "LoRA 适配器"),
}
_HELPED = {
    "better": ("LoRA helped", "LoRA 有帮助"),
    "worse": ("LoRA did harm", "LoRA 起了反作用"),
    "no clear difference": ("LoRA made no clear difference", "LoRA 没有带来明显差别"),
}
_REASONS_ZH = {
    "all rows are of one class": "所有行属于同一类",
    "one class was predicted for every row": "所有行都被判为同一类",
    "a class has no rows, or all of them": "某一类没有任何行，或包含所有行",
    "no row was predicted to be of this class": "没有任何行被判为该类",
    "no row is of this class": "没有任何行属于该类",
    "no row is, or was predicted to be, of this class": "没有任何行属于该类，也没有被判为该类",
}
_TERMS_ZH = {
    # where logits come from
    "inferred on host": "在训练主机上推理",
    "inferred here": "在本机推理",
    # tests and categories of the robustness suite
    "minimum functionality": "基本能力",
    "invariance": "不变性",
    "direction": "方向性",
    "calm": "保持冷静",
    "short positive": "短好评",
    "short negative": "短差评",
    "irony": "反讽",
    "stacked negation": "多重否定",
    "internet slang": "网络用语",
    "typos": "错别字",
    "mixed long": "褒贬夹杂的长文",
    "ultra-long": "超长文本",
    "empty and symbols": "空文本与符号",
    "traditional and simplified": "繁体与简体",
    "width": "全角与半角",
    "punctuation loss": "缺少标点",
    # what errors are grouped by
    "length": "长度",
    "category": "特征",
    "label": "标签",
    "near duplicate": "近似重复",
    "none": "无",
    "same label": "标签相同",
    "other label": "标签不同",
    "negation": "否定",
    "contrast": "转折",
    "question": "疑问",
    "exclamation mark": "感叹号",
    "emoji": "表情符号",
    "digits": "数字",
    "Latin letters in Chinese": "夹杂拉丁字母",
    "traditional characters": "繁体字",
    "a character three times": "同一字符连用三次",
    "very short": "极短",
    "none of these": "以上皆无",
    "0 characters": "0 字",
    "1-15 characters": "1–15 字",
    "16-50 characters": "16–50 字",
    "51-150 characters": "51–150 字",
    "151-500 characters": "151–500 字",
    "501+ characters": "501 字以上",
    # verdicts
    "better": "更好",
    "worse": "更差",
    "no clear difference": "无明显差别",
    "reproduced on host": "已在主机上复现",
    "reproduced here": "已在本机复现",
    "static": "静态检查",
    # facts of a run
    "run": "运行",
    "base model": "底座模型",
    "revision": "版本号",
    "parameters": "参数量",
    "trained parameters": "训练的参数量",
    "evaluated on": "评估数据",
    "note 1": "备注一",
    "note 2": "备注二",
    "spec": "任务配置",
    "data": "数据",
    "train rows": "训练行数",
    "validation rows": "验证行数",
    "test rows": "测试行数",
    "train file": "训练文件",
    "validation file": "验证文件",
    "test file": "测试文件",
    "split": "划分方式",
    "training": "训练",
    "steps": "步数",
    "best": "最佳步",
    "chosen by": "选择依据",
    "tokens a second": "每秒 token 数",
    "device": "设备",
    "number format": "数值格式",
    "threads": "线程数",
    "versions": "版本",
    "cost": "费用",
    "seconds": "秒",
    "price of an hour": "每小时价格",
}
"""Words that documents use as values, where a reader of Chinese should not have to know English."""
_SENTENCES_ZH = (
    (r"The answer “(.*)”\.", r"判为“\1”。"),
    (
        r"Still “(.*)”, and P\((.*)\) at most (\S+) lower than before the change\.",
        r"仍判为“\1”，且 P(\2) 最多下降 \3。",
    ),
    (r"No answer with a confidence of (\S+) or more\.", r"任何答案的置信度都应低于 \1。"),
    (r"P\(positive\) at most (\S+) lower than before the change\.", r"P(正例) 最多下降 \1。"),
    (r"P\(positive\) at most (\S+) higher than before the change\.", r"P(正例) 最多上升 \1。"),
    (r"P\(positive\) more than (\S+) lower than before the change\.", r"P(正例) 下降超过 \1。"),
    (r"P\(positive\) more than (\S+) higher than before the change\.", r"P(正例) 上升超过 \1。"),
    ("the rows that came with the run", "随运行取回的测试集"),
    (r"(\S+) texts inferred here in (\S+) s \((\S+) a second\)", r"在本机推理 \1 条文本，用时 \2 秒（每秒 \3 条）"),
    (r"(\S+) texts were inferred again on a host", r"\1 条文本由主机重新推理"),
    (r"largest difference from the host's logits: (\S+)", r"与主机 logits 的最大差异：\1"),
    (
        "nothing was inferred here: every figure is recomputed from the logits that the host sent",
        "本机没有推理：所有数字由主机送来的 logits 重新计算",
    ),
    (r"it was not asked for \(robustness: no\)", "任务配置中关闭了它（robustness: no）"),
    ("the run has no answers to it", "运行中没有对它的回答"),
    (r"the built-in suite is for two labels; the model has (\d+)", r"内置套件只适用于两个标签，而模型有 \1 个"),
    (
        r"the built-in suite is for praise and complaint; which of (.*) and (.*) praises is not known",
        r"内置套件针对好评与差评，而 \1 与 \2 哪个是好评并不清楚",
    ),
    (r"the built-in suite is for Chinese; the data have no letters", "内置套件针对中文，而数据中没有文字"),
    (
        r"the built-in suite is for Chinese; (\S+) of the data's letters are Chinese characters",
        r"内置套件针对中文，而数据中汉字只占 \1",
    ),
)
"""Whole sentences of a document, as patterns, in the same case."""
_WITNESSES = {
    "Frozen base + trained head": _TITLES_ZH["frozen_head"],
    "TF-IDF (char 1-3) + logistic regression": _TITLES_ZH["tfidf"],
    "a training row that is nearly the same": "一条几乎相同的训练数据",
}
"""Who else contradicts a label, as `mistakes` names them."""


def headline(summary: Mapping[str, Any], lang: Lang = "en") -> list[str]:
    """Two or three plain sentences: how good, and whether LoRA helped."""
    main = main_model(summary)
    figures = main["metrics"]
    sentences = [_how_good(main["key"], figures, summary["rows"], lang)]
    by_key = {comparison["against"]: comparison for comparison in summary["comparisons"]}
    if "frozen_head" in by_key:
        verdict = _HELPED[by_key["frozen_head"]["verdict"]]
        says = comparison_sentence(by_key["frozen_head"], lang)
        sentences.append(f"{verdict[1]}：{says}" if lang == "zh" else f"{verdict[0]}: {uncapitalised(says)}")
    sentences += [comparison_sentence(by_key[key], lang) for key in ("tfidf", "majority") if key in by_key]
    return sentences


def main_model(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The model that the document is about: LoRA where it is, else the first."""
    models: list[dict[str, Any]] = summary["models"]
    return next((model for model in models if model["key"] == "lora"), models[0])


def comparison_sentence(comparison: Mapping[str, Any], lang: Lang = "en") -> str:
    """One sentence about LoRA beside another model on the same rows."""
    wins, losses = comparison["wins"], comparison["losses"]
    low, high = (f"{100 * bound:+.1f}" for bound in comparison["difference_interval"])
    p, points = p_value(comparison["mcnemar_p"]), f"{100 * abs(comparison['accuracy_difference']):.1f}"
    other, verdict = the_model(comparison["against"], lang), comparison["verdict"]
    if lang == "zh":
        says = {
            "better": f"LoRA 适配器的准确率比{other}高 {points} 个百分点",
            "worse": f"LoRA 适配器的准确率比{other}低 {points} 个百分点",
        }.get(verdict, f"LoRA 适配器与{spaced(other, lang)}分不出高下")
        return (
            f"{says}（差值的 95% 区间 {low} 到 {high} 个百分点；只有它判对 {wins:,} 行，"
            f"只有它判错 {losses:,} 行；McNemar {p}）。"
        )
    says = {
        "better": f"The LoRA adapter beats {uncapitalised(other)} by {points} points of accuracy",
        "worse": f"The LoRA adapter is {points} points of accuracy below {uncapitalised(other)}",
    }.get(verdict, f"The LoRA adapter and {uncapitalised(other)} can't be told apart")
    between = f"95 % interval of the difference {low} to {high} points"
    return f"{says} ({between}; right alone on {counted(wins, 'row')}, wrong alone on {losses:,}; McNemar {p})."


def warning_sentence(warning: Mapping[str, Any], lang: Lang = "en") -> str:
    """What a warning says; of a kind that is not known here, the sentence that it brings along.

    Kinds: `one_class` {model, answer, share, inflated, inflated_value, balanced_accuracy}, `few_rows` {rows},
    `temperature_at_bound` {value}, `calibration_above_floor` {ece, p95}, `limited` {rows, rows_in_all}.
    """
    match warning.get("kind"):
        case "one_class":
            return _one_class(warning, lang)
        case "few_rows":
            rows = f"{warning['rows']:,}"
            few = counted(warning["rows"], "row")
            en = f"The test has {few} only: every figure is rough; read the intervals, not the single values."
            zh = f"测试集只有 {rows} 行：所有数字都很粗略，请看区间，不要只看单个数值。"
        case "temperature_at_bound":
            value = f"{warning['value']:g}"
            en = (
                f"The temperature {value} lies at the bound of what is allowed: the validation split is too small or "
                "has hardly an error, and the scaled confidences are not to be relied on."
            )
            zh = f"温度 {value} 处在允许范围的边界：验证集太小，或几乎没有错误，校准后的置信度不可靠。"
        case "calibration_above_floor":
            ece, p95 = number(warning["ece"]), number(warning["p95"])
            en = (
                f"The confidences are off: the ECE is {ece}, where a perfectly calibrated model on as many rows stays "
                f"below {p95} 95 times in 100."
            )
            zh = f"置信度并不准确：ECE 为 {ece}，而完美校准的模型在同样多的行上，100 次中有 95 次低于 {p95}。"
        case "limited":
            rows, in_all = f"{warning['rows']:,}", f"{warning['rows_in_all']:,}"
            en, zh = f"Only {rows} of {in_all} rows were evaluated.", f"只评估了 {in_all} 行中的 {rows} 行。"
        case kind:
            return str(warning.get("sentence") or kind or NONE)
    return zh if lang == "zh" else en


def model_title(key: str, title: str, lang: Lang = "en") -> str:
    """A model's title, which is `title` in English."""
    return _TITLES_ZH.get(key, title) if lang == "zh" else title


def the_model(key: str, lang: Lang = "en") -> str:
    """A model's name with an article, as at the beginning of a sentence."""
    return _NAMES[key][lang == "zh"]


def reason(words: str, lang: Lang = "en") -> str:
    """Why a metric has no value."""
    if lang == "en":
        return words
    prefix = "for one class, "
    if words.startswith(prefix):
        return f"有一类：{reason(words.removeprefix(prefix), lang)}"
    return _REASONS_ZH.get(words, words)


def term(word: str, lang: Lang = "en") -> str:
    """A word that a document uses as a value, for a reader; as it is where it is not known."""
    return _TERMS_ZH.get(word, word) if lang == "zh" else word


def sentence(words: str, lang: Lang = "en") -> str:
    """A whole sentence of a document, for a reader; as it is where it is not known."""
    if lang == "zh":
        for pattern, zh in _SENTENCES_ZH:
            if found := re.fullmatch(pattern, words, re.DOTALL):
                return found.expand(zh)
    return words


def suspicion(why: str, lang: Lang = "en") -> str:
    """Why a label is doubted (`why` of an error), without what the row itself says; as it is where it is not known."""
    said, _, others = why.rpartition(", and so do")
    witnesses = [name for name in _WITNESSES if name in others]
    if not said or not witnesses:
        return why
    if lang == "zh":
        return f"{'、'.join(_WITNESSES[name] for name in witnesses)}也与模型看法一致"
    return f"{' and '.join(witnesses)} {'agree' if len(witnesses) > 1 else 'agrees'} with the model"


def uncapitalised(sentence: str) -> str:
    return "the " + sentence.removeprefix("The ") if sentence.startswith("The ") else sentence


def number(value: Any) -> str:
    """A figure with three decimals, a count with its thousands; a dash for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return NONE
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"


def spaced(name: str, lang: Lang) -> str:
    """A name after Chinese words, which keep Latin letters at a distance."""
    return f" {name}" if lang == "zh" and name[0].isascii() else name


def counted(count: int, thing: str) -> str:
    """`1 row`, `1,636 rows`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def percent(share: float | None, lang: Lang = "en") -> str:
    """A share in [0, 1] as text with one decimal: `84.7 %`, in Chinese `84.7%`; a dash for none."""
    return NONE if share is None else f"{100 * share:.1f}{unit(lang)}"


def unit(lang: Lang) -> str:
    return "%" if lang == "zh" else " %"


def p_value(p: float) -> str:
    """`p = 0.02`, or `p < 0.0001`."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def short(label: str) -> str:
    """A label for the middle of a sentence."""
    return label if len(label) <= MAX_LABEL_CHARS else label[: MAX_LABEL_CHARS - 1] + "…"


def _how_good(key: str, figures: Mapping[str, Any], rows: int, lang: Lang) -> str:
    share, interval = percent(figures["accuracy"], lang), figures["intervals"].get("accuracy")
    if lang == "zh":
        between = f"（95% 区间 {100 * interval[0]:.1f}% 到 {percent(interval[1], lang)}）" if interval else ""
        return f"{the_model(key, lang)}在 {rows:,} 行测试数据中判对了 {share}{between}。"
    between = f" (95 % interval {100 * interval[0]:.1f} to {percent(interval[1])})" if interval else ""
    return f"{the_model(key)} labels {share} of {counted(rows, 'test row')} correctly{between}."


def _one_class(warning: Mapping[str, Any], lang: Lang) -> str:
    answer, share = short(str(warning["answer"])), percent(warning["share"], lang)
    balanced, value = percent(warning["balanced_accuracy"], lang), warning["inflated_value"]
    of_recall = warning["inflated"] == "recall"
    if lang == "zh":
        inflated = f"“{answer}”的召回率" if of_recall else "特异度"
        stands = "没有意义" if value is None else f"（{percent(value, lang)}）因此虚高"
        model = the_model(warning["model"], lang)
        return f"{model}对 {share} 的行都回答“{answer}”：{inflated}{stands}，请看平衡准确率（{balanced}）。"
    inflated = f"recall of “{answer}”" if of_recall else "specificity"
    stands = "has no value" if value is None else f"({percent(value)}) is inflated by that"
    return (
        f"{the_model(warning['model'])} answers “{answer}” to {share} of the rows: "
        f"its {inflated} {stands}; read its balanced accuracy ({balanced}) instead."
    )

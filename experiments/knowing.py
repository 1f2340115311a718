"""What the experiments on hallucination share: questions, how the model is asked, and how an answer is judged.

The model is SmolLM2-135M-Instruct in float32. An answer is *right* if it names what is asked for, *withheld* if it says
that it doesn't know or that there is no such thing, and *false* otherwise.
"""

from __future__ import annotations

import re

import torch
from transformers import DynamicCache

from experiments.looping import greedy, loaded, over, padded, write
from labkit.experiment import Interval, interval

# (country, what its capital has to be called; several spellings are parted by a stroke)
KNOWN = tuple(
    tuple(line.split(": "))
    for line in """
France: Paris; Japan: Tokyo; Italy: Rome; Spain: Madrid; Germany: Berlin; Poland: Warsaw; Greece: Athens; Egypt: Cairo
Sweden: Stockholm; Norway: Oslo; Finland: Helsinki; Hungary: Budapest; Austria: Vienna; Portugal: Lisbon; Cuba: Havana
Ireland: Dublin; Belgium: Brussels; Denmark: Copenhagen; Russia: Moscow; China: Beijing; India: New Delhi|Delhi
Canada: Ottawa; Australia: Canberra; Turkey: Ankara; Iran: Tehran; Iraq: Baghdad; Thailand: Bangkok; Vietnam: Hanoi
Kenya: Nairobi; Argentina: Buenos Aires; Peru: Lima; Chile: Santiago; Mexico: Mexico City; Ukraine: Kyiv|Kiev
South Korea: Seoul; Indonesia: Jakarta; Brazil: Bras; Saudi Arabia: Riyadh; Afghanistan: Kabul; Israel: Jerusalem
""".replace("\n", "; ")
    .strip("; ")
    .split("; ")
)
LITTLE_KNOWN = tuple(
    tuple(line.split(": "))
    for line in """
Burkina Faso: Ouaga; Bhutan: Thimphu; Kiribati: Tarawa; Vanuatu: Port Vila|Port-Vila; Comoros: Moroni; Palau: Ngerulmud
Eswatini: Mbabane; Lesotho: Maseru; Malawi: Lilongwe; Tajikistan: Dushanbe; Turkmenistan: Ashgabat; Suriname: Paramaribo
Mauritania: Nouakchott; Djibouti: Djibouti City; Benin: Porto-Novo|Porto Novo; Gabon: Libreville; Guinea: Conakry
Moldova: Chi; Brunei: Bandar; Tuvalu: Funafuti; Tonga: Nuku; Samoa: Apia; Grenada: George; Belize: Belmopan
Dominica: Roseau; Saint Lucia: Castries; Cape Verde: Praia; Burundi: Gitega; Botswana: Gaborone; Guyana: Georgetown
Liechtenstein: Vaduz; Micronesia: Palikir; Eritrea: Asmara; Chad: N'Djamena|Djamena; Niger: Niamey; Togo: Lom
Kyrgyzstan: Bishkek; Timor-Leste: Dili; Namibia: Windhoek; Honduras: Tegucigalpa
""".replace("\n", "; ")
    .strip("; ")
    .split("; ")
)
# No such countries.
INVENTED = tuple(
    (name, "(there is none)")
    for name in """
Qarvenia Tulapindo Brexlovia Vashmirstan Norduland Ostrakia Belmoria Kaltavia Zendarra Umbrovia Targonia Pellandra
Wexmark Drusenia Halvatia Morquesia Yultania Ferrundia Galdovia Ixtaria Jorvania Lurestan Mendovar Nuvalia Ophelland
Prestovia Quintara Rovenia Sylgaria Trandovia Ulvaria Vornesia Westrakia Xanovia Ymerland Zolmania Ardovia Brunnovia
Cestaria Delvania
""".split()  # noqa: SIM905
)
GROUPS = {"well known": KNOWN, "little known": LITTLE_KNOWN, "invented": INVENTED}
_WITHHELD = re.compile(
    r"(don't|do not|doesn't|does not|didn't|cannot|can't|couldn't|unable|not (able|aware|sure|familiar|know|found|given"
    r"|mentioned|specified|stated|provided|real|recogni|a (real|country|recogni))|unknown|no (such|country|information"
    r"|capital|mention)|fictional|fictitious|imaginary|never mentioned|isn't|is not)",
    re.IGNORECASE,
)


def right(item: tuple[str, str], text: str) -> bool:
    """Whether an answer names the capital: as words, whatever the case of the letters."""
    return any(re.search(rf"\b{re.escape(name)}", text, re.IGNORECASE) for name in item[1].split("|"))


def withheld(text: str) -> bool:
    """Whether an answer says that it has none."""
    return bool(_WITHHELD.search(text))


def false(item: tuple[str, str], text: str) -> bool:
    """Whether an answer states something else than what is right. One that speaks of other matters states nothing."""
    return states(text) and not right(item, text) and not withheld(text)


def states(text: str) -> bool:
    """Whether an answer says of something that it is the capital, or consists of a name alone."""
    return "capital" in text or len(text.split()) <= 3


def turn(question: str, begun: str = "") -> str:
    """A chat of one question, up to where the model answers, or goes on with an answer that is begun."""
    chat = [{"role": "user", "content": question}]
    return loaded()[1].apply_chat_template(chat, tokenize=False, add_generation_prompt=True) + begun


def ask(prompts: list[str], steps: int, batch: int = 40) -> list[str]:
    """What the model writes after each prompt: at most `steps` tokens, up to the end of its turn."""
    _, tokenizer = loaded()
    end, texts = tokenizer.eos_token_id, []
    for start in range(0, len(prompts), batch):
        ids, mask = padded([tokenizer(text).input_ids for text in prompts[start : start + batch]])
        said, _ = write(ids, greedy, steps, mask=mask, may_end=True)
        texts += [tokenizer.decode(row[: row.index(end)] if end in row else row).strip() for row in said.tolist()]
    return texts


@torch.inference_mode()
def sampled(prompts: list[str], count: int, steps: int) -> list[list[str]]:
    """`count` answers to each prompt, drawn at temperature 1 from torch's own generator; a prompt is read only once."""
    model, tokenizer = loaded()
    end, found = tokenizer.eos_token_id, []
    for prompt in prompts:
        cache, read = DynamicCache(), tokenizer(prompt, return_tensors="pt").input_ids
        logits = model(read, past_key_values=cache, logits_to_keep=1).logits[:, -1].expand(count, -1)
        cache.batch_repeat_interleave(count)
        rows = []
        for _ in range(steps):
            rows.append(torch.multinomial(logits.softmax(-1), 1))
            if len(rows) < steps:
                logits = model(rows[-1], past_key_values=cache, logits_to_keep=1).logits[:, -1]
        texts = [row[: row.index(end)] if end in row else row for row in torch.cat(rows, 1).tolist()]
        found.append([place_of(tokenizer.decode(text)) for text in texts])
    return found


@torch.inference_mode()
def first_token(prompts: list[str]) -> tuple[list[float], list[float]]:
    """Of the model's first token after each prompt: the entropy of its distribution, its top probability."""
    model, tokenizer = loaded()
    ids, mask = padded([tokenizer(text).input_ids for text in prompts])
    logs = model(ids, attention_mask=mask, logits_to_keep=1).logits[:, -1].log_softmax(-1)
    return (-(logs.exp() * logs).sum(-1)).tolist(), logs.exp().amax(-1).tolist()


def begun(land: str) -> str:
    """The question for a country's capital, with the answer begun: the next token is the first of a name."""
    return turn(f"What is the capital of {land}?", f"The capital of {land} is")


def place_of(text: str) -> str:
    """The place that an answer names: what stands before the first comma, full stop or line break, and no article."""
    return re.split(r"[,.\n(;:]", text.strip())[0].removeprefix("the ").strip().strip("'\"")


SHORT = "What is the capital of {}? Answer in one short sentence."


def judged(items, texts: list[str]) -> dict[str, list[int]]:
    """Which answers are right, withheld and false, 1 or 0 each."""
    pairs = list(zip(items, texts, strict=True))
    return {
        "right": [int(right(item, text)) for item, text in pairs],
        "withheld": [int(withheld(text) and not right(item, text)) for item, text in pairs],
        "false": [int(false(item, text)) for item, text in pairs],
    }


def share(found, arm: str, number: str) -> Interval:
    """The share of an arm's questions, with its interval over the questions."""
    return interval(over(found, arm, number))

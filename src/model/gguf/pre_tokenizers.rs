//! Pre-tokenizers of byte-level BPE: the name in `tokenizer.ggml.pre` in, the split patterns of the models' own
//! tokenizer.json out.

use serde_json::{Value, json};

/// A pre-tokenizer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Splits {
    /// Unicode normalisation before splitting.
    pub normalizer: Option<&'static str>,
    /// Regular expressions, applied in order to the pieces of the one before.
    patterns: &'static [&'static str],
    /// Whether GPT-2's pattern follows.
    gpt2: bool,
    /// Whether a word that is a token skips the merges.
    pub whole_words: bool,
    /// Default of `tokenizer.ggml.add_bos_token`.
    pub begins: bool,
}

const GPT2: Splits =
    Splits { normalizer: None, patterns: &[], gpt2: true, whole_words: false, begins: false };

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SEED_CODER: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK: &str = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\x{1F7D}ᾀ-ᾴᾶ-ᾼ\x{1FBE}ῂ-ῄῆ-ῌῐ-\x{1FD3}ῖ-\x{1FDB}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\x{2126}ℨ\x{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

/// The pre-tokenizer of this `tokenizer.ggml.pre`; `None` for an unknown name.
pub(super) fn splits(name: &str) -> Option<Splits> {
    let by = |patterns: &'static [&'static str]| Splits { patterns, gpt2: false, ..GPT2 };
    Some(match name {
        "gpt-2" | "phi-2" | "mpt" | "olmo" => GPT2,
        // llama.cpp's default.
        "default" | "" => Splits {
            patterns: &[
                r"[\p{P}\$\+<=>\^~\|]+",
                r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
                r"\p{N}+",
                "[0-9][0-9][0-9]",
            ],
            gpt2: false,
            ..GPT2
        },
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2" => {
            Splits { whole_words: true, begins: true, ..by(&[LLAMA3]) }
        }
        "dbrx" | "smaug-bpe" | "chatglm-bpe" | "glm4" => by(&[LLAMA3]),
        "qwen2" => Splits { normalizer: Some("NFC"), ..by(&[QWEN2]) },
        "qwen35" => Splits { normalizer: Some("NFC"), ..by(&[QWEN35]) },
        "deepseek-r1-qwen" | "stablelm2" | "hunyuan" | "kormo" | "megrez" | "f2llmv2" => by(&[QWEN2]),
        "seed-coder" => by(&[SEED_CODER]),
        "tekken" => Splits { whole_words: true, ..by(&[TEKKEN]) },
        "gpt-4o" | "llama4" | "kanana2" | "minimax-m2" => by(&[GPT4O]),
        "starcoder" | "refact" | "command-r" | "smollm" => Splits { patterns: &[r"\p{N}"], ..GPT2 },
        "deepseek-llm" => by(&[
            r"[\r\n]",
            DEEPSEEK,
            r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
            r"\s+$",
            r"[一-龥ࠀ-一가-퟿]+",
            r"\p{N}+",
        ]),
        "deepseek-coder" => by(&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}"]),
        "deepseek-v3" | "hunyuan-dense" => by(&[r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3]),
        _ => return None,
    })
}

impl Splits {
    /// The `pre_tokenizer` of a tokenizer.json, with byte-level encoding.
    pub fn json(self) -> Value {
        let split = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let mut steps: Vec<Value> = self.patterns.iter().map(split).collect();
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": self.gpt2});
        steps.push(bytes);
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper};

    use super::*;

    fn cut<'a>(name: &str, text: &'a str) -> Vec<&'a str> {
        let splits: PreTokenizerWrapper = serde_json::from_value(splits(name).unwrap().json()).unwrap();
        let mut whole = PreTokenizedString::from(text);
        splits.pre_tokenize(&mut whole).unwrap();
        let pieces = whole.get_splits(OffsetReferential::Original, OffsetType::Byte);
        pieces.into_iter().map(|(_, (begin, end), _)| &text[begin..end]).collect()
    }

    #[test]
    fn text_is_cut_as_each_vocabulary_wants_it() {
        let text = "I'LL pay 12345€\n\n  now";
        assert_eq!(cut("llama-bpe", text), ["I", "'LL", " pay", " ", "123", "45", "€\n\n", " ", " now"]);
        assert_eq!(
            cut("qwen2", text),
            ["I", "'LL", " pay", " ", "1", "2", "3", "4", "5", "€\n\n", " ", " now"]
        );
        assert_eq!(cut("gpt-2", text), ["I", "'", "LL", " pay", " 12345", "€", "\n\n ", " now"]);
        assert_eq!(cut("deepseek-v3", "a=1234, 三日"), ["a", "=", "123", "4", ",", " ", "三日"]);
        assert_eq!(splits("spiral"), None);
    }

    #[test]
    fn nothing_is_lost_between_the_cuts() {
        let names = [
            "default",
            "gpt-2",
            "llama-bpe",
            "dbrx",
            "qwen2",
            "qwen35",
            "deepseek-r1-qwen",
            "seed-coder",
            "tekken",
            "gpt-4o",
            "smollm",
            "deepseek-llm",
            "deepseek-coder",
            "deepseek-v3",
        ];
        for text in ["", "  a\r\n\tb  ", "ünder 12345 moons: 三日月 🌙 don't, WE'LL (x+y)=z_1;"] {
            for name in names {
                assert_eq!(cut(name, text).concat(), text, "{name}");
            }
        }
    }
}

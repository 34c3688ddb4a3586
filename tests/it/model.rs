//! Parity of the forward pass with transformers at every site and token (`tests/fixtures/make.py`), and its invariants for
//! reading, batching and caching.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Tensor};
use pearlpoint::Result;
use pearlpoint::dialogue::Role;
use pearlpoint::model::compute::backend::Backend;
use pearlpoint::model::families::{self, Config};
use pearlpoint::model::transformer::rope::{Rope, Scaling};
use pearlpoint::model::{Cache, Decoder, Dtype, Hook, Phase, Point, Site, TensorRef, Token, Weights};

/// With tokenizers and templates (`tests/fixtures/make.py`).
const CHECKPOINTS: [&str; 4] = ["qwen3", "qwen3-wide", "llama", "llama3"];

/// Two shapes of every family (`tests/fixtures/families/make.py`).
pub(crate) fn families() -> Vec<String> {
    let folders = std::fs::read_dir("tests/fixtures/families").unwrap();
    let folders = folders.map(|folder| folder.unwrap().path()).filter(|path| path.is_dir());
    let mut names: Vec<String> =
        folders.map(|path| format!("families/{}", path.file_name().unwrap().to_str().unwrap())).collect();
    names.sort();
    assert_eq!(names.len(), 99);
    names
}

fn checkpoints() -> Vec<String> {
    CHECKPOINTS.map(String::from).into_iter().chain(families()).collect()
}

pub(crate) fn decoder(name: &str) -> Decoder {
    decoder_in(name, Dtype::F32)
}

fn decoder_in(name: &str, dtype: Dtype) -> Decoder {
    let folder = Path::new("tests/fixtures").join(name);
    let config = folder.join("config.json");
    let config = Config::parse(config.display().to_string(), &std::fs::read(&config).unwrap()).unwrap();
    let weights = Weights::open(&folder).unwrap();
    let architecture = families::architecture(&config).unwrap();
    let decoder = Decoder::build(architecture, |place| weights.take(place, dtype)).unwrap();
    weights.refuse_extra(|name| decoder.architecture().ignores(name)).unwrap();
    decoder
}

/// Results of transformers: the activations of each site, and the id and dialogue of each token.
pub(crate) struct Expected {
    pub(crate) sites: BTreeMap<Site, Tensor>,
    ids: Vec<u32>,
    example: Vec<usize>,
    /// One a row; none where the model is an encoder.
    pub(crate) greedy: Vec<Vec<u32>>,
    /// What transformers computes in bf16.
    bf16: Option<(Site, Tensor)>,
}

pub(crate) fn expected(name: &str) -> Expected {
    let path = format!("tests/fixtures/{name}/expected.safetensors");
    let mut tensors = candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap();
    let mut whole = |name: &str| tensors.remove(name).unwrap().to_dtype(DType::U32).unwrap();
    let (ids, example) = (whole("ids"), whole("example"));
    let greedy = tensors.remove("greedy").map(|greedy| greedy.to_dtype(DType::U32).unwrap());
    let bf16 = tensors.keys().find(|name| name.starts_with("bf16.")).cloned();
    let bf16 = bf16.map(|name| (name["bf16.".len()..].parse().unwrap(), tensors.remove(&name).unwrap()));
    Expected {
        ids: ids.to_vec1().unwrap(),
        example: example.to_vec1::<u32>().unwrap().into_iter().map(|n| n as usize).collect(),
        greedy: greedy.map_or(Vec::new(), |greedy| greedy.to_vec2().unwrap()),
        bf16,
        sites: tensors.into_iter().map(|(site, tensor)| (site.parse().unwrap(), tensor)).collect(),
    }
}

/// Tokens of rows of ids, without marks.
pub(crate) fn tokens(rows: &[Vec<u32>]) -> Vec<Token> {
    let row = |(row, ids): (usize, &Vec<u32>)| -> Vec<Token> {
        let token = |(position, &id)| Token {
            id,
            row,
            position,
            role: Role::User,
            turn: 0,
            phase: Phase::Prompt,
            index: position,
            start: false,
            generated: false,
        };
        ids.iter().enumerate().map(token).collect()
    };
    rows.iter().enumerate().flat_map(row).collect()
}

impl Expected {
    pub(crate) fn rows(&self) -> Vec<Vec<u32>> {
        let count = self.example.last().unwrap() + 1;
        let row =
            |row| self.ids.iter().zip(&self.example).filter(move |(_, n)| **n == row).map(|(id, _)| *id);
        (0..count).map(|n| row(n).collect()).collect()
    }
}

/// A hook that keeps the activations of every site of one width.
#[derive(Default)]
pub(crate) struct Keep(pub(crate) BTreeMap<Site, Vec<Tensor>>);

impl Hook for Keep {
    fn wants(&self, site: Site) -> bool {
        !matches!(site, Site::Block(_, Point::AttnWeights))
    }

    fn call(&mut self, site: Site, activations: Tensor, _: &[Token]) -> Result<Tensor> {
        self.0.entry(site).or_default().push(activations.clone());
        Ok(activations)
    }
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference over largest value.
pub(crate) fn error(found: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(found.shape(), expected.shape());
    let (found, expected) = (numbers(found), numbers(expected));
    let difference = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    difference / expected.iter().map(|x| x.abs()).fold(0.0, f32::max)
}

#[test]
fn every_site_and_token_agrees_with_transformers() {
    for name in checkpoints() {
        let (decoder, expected) = (decoder(&name), expected(&name));
        let mut keep = Keep::default();
        decoder.forward(&tokens(&expected.rows()), None, &[], &mut keep).unwrap();
        let sites: Vec<Site> = expected.sites.keys().copied().collect();
        assert_eq!(sites, decoder.architecture().sites(), "{name}");
        for (site, expected) in &expected.sites {
            let error = error(&keep.0[site][0], expected);
            assert!(error <= 1e-4, "{name} {site}: {error}");
            assert_eq!(expected.dim(1).unwrap(), decoder.architecture().site_width(*site), "{name} {site}");
        }
    }
}

/// The last block's residual stream, of weights in bf16, is closer to the truth than transformers in bf16 is.
#[test]
fn weights_in_bf16_cost_less_than_they_cost_transformers() {
    let mut compared = 0;
    for name in families() {
        let Some((site, theirs)) = expected(&name).bf16 else { continue };
        let (decoder, expected) = (decoder_in(&name, Dtype::Bf16), expected(&name));
        let mut keep = Keep::default();
        decoder.forward(&tokens(&expected.rows()), None, &[], &mut keep).unwrap();
        let [ours, theirs] = [&keep.0[&site][0], &theirs].map(|found| error(found, &expected.sites[&site]));
        // A delta net norms the outputs of its heads, where rounding counts for more if they are near 0.
        let most = if name.contains("qwen3_next") { 5e-2 } else { 2e-2 };
        assert!(ours <= theirs && ours <= most, "{name}: {ours}, transformers {theirs}");
        compared += 1;
    }
    assert_eq!(compared, 38);
}

#[test]
fn weights_in_half_the_bits_give_the_same_where_nothing_is_rounded() {
    // The fixtures are stored in bf16, and f16 holds their numbers but for the smallest.
    for name in checkpoints() {
        let expected = expected(&name);
        let [mut plain, mut bf16, mut f16] = [Dtype::F32, Dtype::Bf16, Dtype::F16].map(|dtype| {
            let mut keep = Keep::default();
            decoder_in(&name, dtype).forward(&tokens(&expected.rows()), None, &[], &mut keep).unwrap();
            keep.0.into_iter().map(|(site, mut kept)| (site, kept.remove(0))).collect::<BTreeMap<_, _>>()
        });
        for site in expected.sites.keys() {
            let plain = plain.remove(site).unwrap();
            let bf16 = bf16.remove(site).unwrap();
            // Some products of bf16 round what they multiply.
            if !Backend::chosen().unwrap().rounds_to_bf16() {
                assert_eq!(numbers(&bf16), numbers(&plain), "{name} {site}");
            }
            assert!(error(&f16.remove(site).unwrap(), &plain) <= 1e-4, "{name} {site}");
        }
    }
}

/// Greedy decoding without the cache; none where the rotation changes with every token: transformers' cache keeps keys as they were
/// first rotated, as ours.
pub(crate) fn greedy_without_cache(decoder: &Decoder, expected: &Expected, count: usize) -> Option<bool> {
    let dynamic = |rope: &Rope| matches!(rope.scaling, Scaling::Dynamic { .. });
    let whole = !decoder.architecture().ropes.iter().any(dynamic);
    whole.then(|| greedy(decoder, expected.rows(), count, None) == expected.greedy)
}

/// Greedy decoding, all rows side by side.
pub(crate) fn greedy(
    decoder: &Decoder,
    mut rows: Vec<Vec<u32>>,
    count: usize,
    mut cache: Option<Cache>,
) -> Vec<Vec<u32>> {
    let prompts: Vec<usize> = rows.iter().map(Vec::len).collect();
    for _ in 0..count {
        let mut tokens = tokens(&rows);
        if let Some(cache) = &mut cache {
            for (row, ids) in rows.iter().enumerate() {
                if decoder.rereads(cache.length(row), ids.len()) {
                    cache.forget(row);
                }
            }
            tokens.retain(|token| token.position >= cache.length(token.row));
        }
        let last = |row| tokens.iter().rposition(|token| token.row == row).unwrap();
        let at: Vec<usize> = (0..rows.len()).map(last).collect();
        let logits = decoder.forward(&tokens, cache.as_mut(), &at, &mut ()).unwrap();
        let next: Vec<u32> = logits.argmax(1).unwrap().to_vec1().unwrap();
        rows.iter_mut().zip(next).for_each(|(row, id)| row.push(id));
    }
    rows.iter().zip(prompts).map(|(row, prompt)| row[prompt..].to_vec()).collect()
}

#[test]
fn greedy_decoding_agrees_with_transformers_with_the_cache_and_without() {
    for name in checkpoints() {
        let (decoder, expected) = (decoder(&name), expected(&name));
        let Some(count) = expected.greedy.first().map(Vec::len) else { continue };
        assert_eq!(
            greedy(&decoder, expected.rows(), count, Some(Cache::default())),
            expected.greedy,
            "{name}"
        );
        assert_ne!(greedy_without_cache(&decoder, &expected, count), Some(false), "{name}");
    }
}

#[test]
fn a_row_alone_gives_what_it_gives_in_any_batch() {
    let (decoder, expected) = (decoder("qwen3"), expected("qwen3"));
    let rows = expected.rows();
    let keep = |rows: &[Vec<u32>]| {
        let mut keep = Keep::default();
        decoder.forward(&tokens(rows), None, &[], &mut keep).unwrap();
        keep.0
    };
    let together = keep(&[rows[2].clone(), rows[0].clone(), rows[1].clone()]);
    let alone = keep(&rows[..1]);
    for (site, alone) in alone {
        let together = together[&site][0].narrow(0, rows[2].len(), rows[0].len()).unwrap();
        assert!(error(&together, &alone[0]) <= 1e-5, "{site}");
    }
}

#[test]
fn a_cached_prefix_changes_no_activation() {
    let (decoder, expected) = (decoder("llama3"), expected("llama3"));
    let whole = tokens(&expected.rows());
    let (mut cache, mut keep) = (Cache::default(), Keep::default());
    // Two passes that cut every row in the middle, at different places.
    let (first, second): (Vec<Token>, Vec<Token>) =
        whole.iter().cloned().partition(|t| t.position < 5 + t.row);
    for part in [&first, &second] {
        decoder.forward(part, Some(&mut cache), &[], &mut keep).unwrap();
    }
    for (site, expected) in &expected.sites {
        let (width, all) = (expected.dim(1).unwrap(), numbers(expected));
        for (part, found) in [&first, &second].into_iter().zip(&keep.0[site]) {
            let at =
                |token: &Token| whole.iter().position(|t| (t.row, t.position) == (token.row, token.position));
            let expected: Vec<f32> =
                part.iter().flat_map(|token| all[at(token).unwrap() * width..][..width].to_vec()).collect();
            let expected = Tensor::from_vec(expected, (part.len(), width), found.device()).unwrap();
            assert!(error(found, &expected) <= 1e-4, "{site}");
        }
    }
}

#[test]
fn reading_changes_no_logit() {
    let (decoder, expected) = (decoder("qwen3"), expected("qwen3"));
    let tokens = tokens(&expected.rows());
    let at: Vec<usize> = (0..tokens.len()).collect();
    let plain = decoder.forward(&tokens, None, &at, &mut ()).unwrap();
    let watched = decoder.forward(&tokens, None, &at, &mut Keep::default()).unwrap();
    assert_eq!(numbers(&plain), numbers(&watched));
}

#[test]
fn several_files_with_an_index_are_one_checkpoint() {
    let (folder, whole) = (tempfile::tempdir().unwrap(), Path::new("tests/fixtures/llama/model.safetensors"));
    let tensors = candle_core::safetensors::load(whole, &candle_core::Device::Cpu).unwrap();
    let mut files: BTreeMap<&str, std::collections::HashMap<&str, Tensor>> = BTreeMap::new();
    let mut weight_map = BTreeMap::new();
    for (number, (name, tensor)) in tensors.iter().enumerate() {
        let file = ["model-1.safetensors", "model-2.safetensors"][number % 2];
        files.entry(file).or_default().insert(name, tensor.clone());
        weight_map.insert(name, file);
    }
    for (file, tensors) in &files {
        candle_core::safetensors::save(tensors, folder.path().join(file)).unwrap();
    }
    let index = serde_json::json!({ "weight_map": weight_map });
    std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let (parts, whole) =
        (Weights::open(folder.path()).unwrap(), Weights::open(whole.parent().unwrap()).unwrap());
    for (name, tensor) in &tensors {
        let both = [&parts, &whole].map(|weights| {
            let place = TensorRef::whole(name, tensor.dims());
            numbers(&weights.take(&place, Dtype::F32).unwrap().floats().unwrap())
        });
        assert_eq!(both[0], both[1], "{name}");
    }
}

/// A hook that reads some tokens at some sites, and keeps what it is called with.
struct Look {
    sites: Vec<Site>,
    tokens: Option<Vec<usize>>,
    seen: BTreeMap<Site, Vec<Vec<f32>>>,
    positions: BTreeMap<Site, Vec<usize>>,
}

impl Look {
    fn new(sites: Vec<Site>, tokens: Option<Vec<usize>>) -> Look {
        Look { sites, tokens, seen: BTreeMap::new(), positions: BTreeMap::new() }
    }
}

impl Hook for Look {
    fn wants(&self, site: Site) -> bool {
        self.sites.contains(&site)
    }

    fn token_indices(&self) -> Option<Vec<usize>> {
        self.tokens.clone()
    }

    fn call(&mut self, site: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor> {
        let rows: Vec<Vec<f32>> = activations.to_vec2()?;
        assert_eq!(rows.len(), tokens.len());
        self.positions.insert(site, tokens.iter().map(|token| token.position).collect());
        self.seen.insert(site, rows);
        Ok(activations)
    }
}

fn close(found: &[f32], expected: &[f32], to: f32) -> bool {
    let most = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
    found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= to * most)
}

/// A hook that reads few tokens gets exactly these past the last attention, with the same values.
#[test]
fn past_the_last_attention_only_what_is_looked_at_is_made() {
    for name in checkpoints() {
        let (decoder, expected) = (decoder(&name), expected(&name));
        let tokens = tokens(&expected.rows());
        let some: Vec<usize> = (0..tokens.len()).filter(|at| at % 7 == 3).collect();
        let a = decoder.architecture();
        let all = a.sites();
        let first = a.parse_sites("0.attn_out,0.mlp_hidden,0.resid_post").unwrap_or_default();
        for sites in [all, first, vec![a.sites()[1]]] {
            if sites.is_empty() {
                continue;
            }
            let (mut whole, mut few) = (Look::new(sites.clone(), None), Look::new(sites, Some(some.clone())));
            decoder.forward(&tokens, None, &[], &mut whole).unwrap();
            decoder.forward(&tokens, None, &[], &mut few).unwrap();
            let last = few.seen.keys().next_back().copied().unwrap();
            let ends = last.block().unwrap_or(a.blocks.len() - 1);
            for (site, rows) in &few.seen {
                let narrow = *site > Site::Block(ends, Point::AttnHeads);
                let at: Vec<usize> = if narrow { some.clone() } else { (0..tokens.len()).collect() };
                let positions: Vec<usize> = at.iter().map(|&at| tokens[at].position).collect();
                assert_eq!(few.positions[site], positions, "{name} {site}");
                for (row, at) in rows.iter().zip(at) {
                    assert!(close(row, &whole.seen[site][at], 1e-5), "{name} {site} {at}");
                }
            }
        }
        if a.has(Site::Logits) {
            let every: Vec<usize> = (0..tokens.len()).collect();
            let logits = |at: &[usize]| -> Vec<Vec<f32>> {
                decoder.forward(&tokens, None, at, &mut ()).unwrap().to_vec2().unwrap()
            };
            let (whole, few) = (logits(&every), logits(&[some[1], some[0]]));
            assert!(few.iter().zip([1, 0]).all(|(row, n)| close(row, &whole[some[n]], 1e-5)), "{name}");
        }
    }
}

/// A cache of the first blocks suffices for a pass over these blocks, and is refused by a deeper one.
#[test]
fn a_beginning_is_read_no_deeper_than_what_follows_it() {
    let (decoder, expected) = (decoder("qwen3-wide"), expected("qwen3-wide"));
    let tokens = tokens(&expected.rows()[..1]);
    let (begin, rest) = tokens.split_at(tokens.len() / 2);
    let mut cache = Cache::of_first(1);
    decoder.forward(begin, Some(&mut cache), &[], &mut ()).unwrap();
    let prefix = cache.into_prefix(0);
    let read = |sites: &str| {
        let sites = decoder.architecture().parse_sites(sites).unwrap();
        let mut look = Look::new(sites, None);
        decoder.forward(rest, Some(&mut Cache::after(prefix.clone())), &[], &mut look).map(|_| look)
    };
    let look = read("0.resid_post,1.resid_pre").unwrap();
    let expected = &expected.sites[&"0.resid_post".parse().unwrap()].to_vec2::<f32>().unwrap()[begin.len()..];
    for (row, expected) in look.seen.values().next().unwrap().iter().zip(expected) {
        assert!(close(row, expected, 1e-4));
    }
    let error = read("1.resid_post").map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("keys and values of 1 blocks only"), "{error}");
}

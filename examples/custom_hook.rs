//! A hook of one's own: called by the forward pass with the activations of a site, which it may read or change.
//!
//! `cargo run --release --example custom_hook`

use pearlpoint::generate::generate;
use pearlpoint::prelude::*;

/// Sets one dimension of a site to zero, and counts the tokens that it saw.
struct Knockout {
    site: Site,
    dimension: usize,
    tokens: usize,
}

impl Hook for Knockout {
    fn wants(&self, site: Site) -> bool {
        site == self.site
    }

    /// `activations` is `[tokens, width]` in f32; `tokens` has a record for each of its rows.
    fn call(&mut self, _: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor> {
        self.tokens += tokens.len();
        let mut mask = vec![1f32; activations.dim(1)?];
        mask[self.dimension] = 0.0;
        let mask = Tensor::new(mask, activations.device())?;
        Ok(activations.broadcast_mul(&mask)?)
    }

    /// Stands for what the hook changes, so that cached keys and values are never read under another hook.
    fn cache_key(&self, _row: usize) -> u64 {
        1 + self.dimension as u64
    }
}

pub fn main() -> Result<()> {
    let model = Model::load("organism")?;
    let data = Dialogues::organism(2, 0)?;
    let options = GenerateOptions::default().greedy();
    let plain = generate(&model, &data.dialogues, &options, &mut (), &mut |_| true)?;
    for dimension in [7, 100] {
        let mut hook = Knockout { site: "2.resid_post".parse()?, dimension, tokens: 0 };
        let answers = generate(&model, &data.dialogues, &options, &mut hook, &mut |_| true)?;
        let changed = plain.iter().zip(&answers).filter(|(plain, own)| plain.text != own.text).count();
        println!(
            "without dimension {dimension}: {changed} of {} answers change, {} tokens seen",
            plain.len(),
            hook.tokens
        );
    }
    println!("{}", plain[0].text);
    Ok(())
}

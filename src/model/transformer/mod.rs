//! The transformer: one forward pass for all families, which differ as data in [`architecture`].

pub mod architecture;
pub(crate) mod block;
pub mod decoder;
pub(crate) mod expert_loader;
pub mod kv_cache;
pub(crate) mod latent;
pub(crate) mod loader;
pub(crate) mod mlp;
pub(crate) mod moe;
pub mod rope;

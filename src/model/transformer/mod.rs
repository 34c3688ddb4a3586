//! The transformer: one forward pass for all families, which differ as data in [`architecture`].

pub mod architecture;
pub(crate) mod attention;
pub(crate) mod attention_loader;
pub(crate) mod block;
pub mod decoder;
pub(crate) mod delta_loader;
pub(crate) mod delta_net;
pub(crate) mod expert_loader;
pub(crate) mod expert_shape;
pub mod kv_cache;
pub(crate) mod latent;
pub(crate) mod loader;
pub(crate) mod mlp;
pub(crate) mod moe;
pub(crate) mod pass;
pub(crate) mod per_layer;
pub mod rope;
pub(crate) mod row_state;
pub(crate) mod stream_loader;
pub(crate) mod streams;
pub(crate) mod tensor_names;

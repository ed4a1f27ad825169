"""The demo model as a GGUF file, with a chat template that gives the messages back as the prompt that they were cut from."""

import json
import pathlib

import gguf
import numpy
import safetensors

DEMO = pathlib.Path(__file__).parent.parent / "data" / "demo"

# run-api sends the prompt's first line as the system message, and the rest with two line ends as the user's.
TEMPLATE = "{{ messages[0].content }}\n{{ messages[1].content[:-2] }}"

NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def interleaved(weight, heads):
    """Rows of a head in the order of llama.cpp, which rotates neighbours and not halves."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def widened(tensor):
    """bf16 bits as f32."""
    return (numpy.frombuffer(tensor, numpy.uint16).astype(numpy.uint32) << 16).view(numpy.float32)


def weights(config):
    """llama.cpp's names with f32 arrays."""
    heads = {"self_attn.q_proj": config["num_attention_heads"], "self_attn.k_proj": config["num_key_value_heads"]}
    for name, entry in safetensors.deserialize((DEMO / "model.safetensors").read_bytes()):
        array = widened(entry["data"]).reshape(entry["shape"])
        if not name.startswith("model.layers."):
            yield NAMES[name], array
            continue
        _, _, layer, part = name.removesuffix(".weight").split(".", 3)
        yield f"blk.{layer}.{NAMES[part]}.weight", interleaved(array, heads[part]) if part in heads else array


def write(path):
    """Writes the model; norms in f32, everything else in bf16, as it is."""
    config = json.loads((DEMO / "config.json").read_text())
    tokenizer = json.loads((DEMO / "tokenizer.json").read_text())
    special = {token["id"] for token in tokenizer["added_tokens"]}
    vocab = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocab)
    kinds = (gguf.TokenType.CONTROL, gguf.TokenType.NORMAL)
    writer.add_token_types([kinds[number not in special] for number in range(len(vocab))])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)
    kind = gguf.GGMLQuantizationType.BF16
    for name, array in weights(config):
        if array.ndim == 1:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

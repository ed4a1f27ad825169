"""Random models in the files that each engine reads: the same shape and work, no download."""

import json
import pathlib

import numpy


def tensors(config):
    """Names and shapes of a Llama checkpoint, in the order of its layers."""
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    head_dim = hidden // config["num_attention_heads"]
    kv_width = config["num_key_value_heads"] * head_dim
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}."
        yield name + "input_layernorm.weight", (hidden,)
        yield name + "self_attn.q_proj.weight", (hidden, hidden)
        yield name + "self_attn.k_proj.weight", (kv_width, hidden)
        yield name + "self_attn.v_proj.weight", (kv_width, hidden)
        yield name + "self_attn.o_proj.weight", (hidden, hidden)
        yield name + "post_attention_layernorm.weight", (hidden,)
        yield name + "mlp.gate_proj.weight", (ffn, hidden)
        yield name + "mlp.up_proj.weight", (ffn, hidden)
        yield name + "mlp.down_proj.weight", (hidden, ffn)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (config["vocab_size"], hidden)


def values(name, shape):
    """Random f32 of a scale that keeps activations finite, the same for the same name."""
    random = numpy.random.default_rng(list(name.encode()))
    uniform = random.random(shape, dtype=numpy.float32) - 0.5
    if len(shape) == 1:
        return 1 + 0.1 * uniform
    return uniform * numpy.float32((12 / shape[-1]) ** 0.5)


def bf16(array):
    """The upper halves of f32."""
    return (array.view(numpy.uint32) >> 16).astype(numpy.uint16)


def write_safetensors(config, directory):
    """A model directory in Hugging Face layout without a tokenizer: `config.json` and one bf16 file, whose path it returns."""
    directory = pathlib.Path(directory)
    (directory / "config.json").write_text(json.dumps(config))
    header, offset = {}, 0
    for name, shape in tensors(config):
        end = offset + 2 * int(numpy.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = directory / "model.safetensors"
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in tensors(config):
            file.write(bf16(values(name, shape)).tobytes())
    return path


GGUF_NAMES = {
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


def gguf_name(name):
    """llama.cpp's name of a tensor."""
    if name.startswith("model.layers."):
        _, _, layer, part = name.removesuffix(".weight").split(".", 3)
        return f"blk.{layer}.{GGUF_NAMES[part]}.weight"
    return {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }[name]


def write_gguf(config, path, kind):
    """A GGUF file with weights of `kind` ("bf16" or "q8_0") and a vocabulary of no meaning."""
    import gguf

    writer = gguf.GGUFWriter(str(path), "llama")
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    quantization = {"bf16": gguf.GGMLQuantizationType.BF16, "q8_0": gguf.GGMLQuantizationType.Q8_0}[kind]
    file_type = {"bf16": gguf.LlamaFileType.MOSTLY_BF16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}[kind]
    writer.add_file_type(file_type)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    control = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    words = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    kinds = control + [gguf.TokenType.BYTE] * 256
    others = config["vocab_size"] - len(words)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words + [f"w{number}" for number in range(others)])
    writer.add_token_scores([0.0] * config["vocab_size"])
    writer.add_token_types(kinds + [gguf.TokenType.NORMAL] * others)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, shape in tensors(config):
        array = values(name, shape)
        if len(shape) == 1:
            writer.add_tensor(gguf_name(name), array)
        else:
            packed = gguf.quants.quantize(array, quantization)
            writer.add_tensor(gguf_name(name), packed, raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

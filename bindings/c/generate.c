/* Loads a model, streams a generation, and cancels another one.
 *   cc -std=c99 generate.c -lswebench_infer -o generate && ./generate MODEL_DIR "PROMPT" */
#include <stdio.h>
#include <swebench_infer.h>

static int fail(swebench_error *error) {
  swebench_str message = swebench_error_message(error);
  fprintf(stderr, "error %d: %.*s\n", (int)swebench_error_code(error), (int)message.len, message.ptr);
  swebench_error_free(error);
  return 1;
}

/* Prints a job's text as it comes, and how it ended. With `cancel`, the first text is enough. */
static int32_t follow(swebench_job *job, int cancel, swebench_error **error) {
  swebench_event *event = NULL;
  int32_t status;
  while ((status = swebench_job_next(job, -1, &event, error)) == SWEBENCH_OK) {
    swebench_str text = swebench_event_text(event), json = swebench_event_json(event);
    if (swebench_event_kind(event) == SWEBENCH_EVENT_TEXT) {
      if (text.len > 0) fwrite(text.ptr, 1, text.len, stdout);
      if (cancel) swebench_job_cancel(job);
    } else if (swebench_event_kind(event) == SWEBENCH_EVENT_FINISHED) {
      fprintf(stderr, "%.*s\n", (int)json.len, json.ptr);
    }
    swebench_event_free(event);
  }
  return status; /* SWEBENCH_END, or why the job failed */
}

int main(int argc, char **argv) {
  static const char *const requests[] = {"{\"max_new_tokens\": 24}",
                                         "{\"max_new_tokens\": 4000, \"eos_token_ids\": []}"};
  swebench_error *error = NULL;
  swebench_model *model = NULL;
  swebench_tokenizer *tokenizer = NULL;
  swebench_tokens *tokens = NULL;
  char config[4096];
  int failed = 0;
  if (argc != 3) return fprintf(stderr, "usage: %s MODEL_DIR PROMPT\n", argv[0]), 2;
  snprintf(config, sizeof config, "{\"path\": \"%s\"}", argv[1]);
  if (swebench_init(SWEBENCH_ABI_VERSION, &error) < 0 || swebench_model_load(swebench_cstr(config), &model, &error) < 0 ||
      swebench_model_tokenizer(model, &tokenizer, &error) < 0 ||
      swebench_tokenizer_encode(tokenizer, swebench_cstr(argv[2]), SWEBENCH_SPECIAL_TOKENS, &tokens, &error) < 0)
    failed = fail(error);
  for (int i = 0; i < 2 && !failed; i++) {
    size_t len = 0;
    const uint32_t *ids = swebench_tokens_data(tokens, &len);
    swebench_job *job = NULL;
    if (swebench_generate_start(model, swebench_cstr(requests[i]), ids, len, &job, &error) < 0 ||
        follow(job, i == 1, &error) < 0)
      failed = fail(error);
    swebench_job_free(job);
    putchar('\n');
  }
  swebench_tokens_free(tokens);
  swebench_tokenizer_free(tokenizer);
  swebench_model_free(model);
  return failed;
}

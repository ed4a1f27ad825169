/* Asks a service's model, streams the answer, and prints what it cost.
 *   cc -std=c99 complete.c -lswebench_infer -o complete
 *   OPENAI_API_KEY=… ./complete '{"model": "gpt-4o"}' '{"user": "Hello", "stream": true}'
 *   ./complete '{"model": "m", "base_url": "http://localhost:8000/v1"}' '{"user": "Hello", "stream": true}' */
#include <stdio.h>
#include <swebench_infer.h>

static int fail(swebench_error *error) {
  swebench_str message = swebench_error_message(error), json = swebench_error_json(error);
  fprintf(stderr, "error %d: %.*s\n", (int)swebench_error_code(error), (int)message.len, message.ptr);
  fprintf(stderr, "%.*s\n", (int)json.len, json.ptr); /* http_status, provider_code, retry_after */
  swebench_error_free(error);
  return 1;
}

int main(int argc, char **argv) {
  swebench_error *error = NULL;
  swebench_client *client = NULL;
  swebench_job *job = NULL;
  swebench_event *event = NULL;
  swebench_str no_key = {NULL, 0}; /* a key that is not in the environment is passed here, never as JSON */
  int32_t status;
  int failed = 0;
  if (argc != 3) return fprintf(stderr, "usage: %s CLIENT_JSON REQUEST_JSON\n", argv[0]), 2;
  if (swebench_init(SWEBENCH_ABI_VERSION, &error) < 0 ||
      swebench_client_open(swebench_cstr(argv[1]), no_key, &client, &error) < 0 ||
      swebench_client_complete_start(client, swebench_cstr(argv[2]), &job, &error) < 0)
    failed = fail(error);
  while (!failed && (status = swebench_job_next(job, -1, &event, &error)) != SWEBENCH_END) {
    if (status < 0) {
      failed = fail(error);
      break;
    }
    swebench_str text = swebench_event_text(event), json = swebench_event_json(event);
    if (swebench_event_kind(event) == SWEBENCH_EVENT_TEXT)
      fwrite(text.ptr, 1, text.len, stdout);
    else if (swebench_event_kind(event) == SWEBENCH_EVENT_FINISHED)
      fprintf(stderr, "%.*s\n", (int)json.len, json.ptr); /* samples, usage, cost, attempts */
    swebench_event_free(event);
  }
  swebench_job_free(job); /* cancels what still runs */
  swebench_client_free(client);
  return failed;
}

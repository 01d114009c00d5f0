/* SPDX-License-Identifier: Apache-2.0 */
/* llama-server as our child; a script of that name on the PATH stands in for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "egress/egress.h"
#include "ev/loop.h"
#include "llm/llm.h"

/* What it does stands in the file `how` beside it: die at once, fail to bind once or always, load for a while, answer. Each
 * start adds a line with its process and its arguments to `starts`. */
static const char script[] =
    "#!/usr/bin/python3\n"
    "import http.server, os, sys\n"
    "here = os.path.dirname(os.path.abspath(__file__))\n"
    "how = open(here + '/how').read()\n"
    "with open(here + '/starts', 'a') as f: f.write(f'{os.getpid()} {\" \".join(sys.argv[1:])}\\n')\n"
    "starts = open(here + '/starts').read().count('\\n')\n"
    "if [n for n in os.environ if n.endswith('_KEY')]: sys.exit('it has keys')\n"
    "print('loading', flush=True)\n"
    "if how == 'die': print('\\x1b[31merror: bad magic\\n\\n', flush=True); sys.exit(3)\n"
    "if how == 'taken' and starts == 1: sys.exit('couldn\\'t bind HTTP server socket')\n"
    "if how == 'always taken': sys.exit('couldn\\'t bind HTTP server socket')\n"
    "asked = 0\n"
    "class Handler(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        global asked\n"
    "        asked += 1\n"
    "        ready = self.path == '/health' and asked > 2\n"
    "        self.send_response(200 if ready else 503)\n"
    "        self.send_header('Content-Length', '2')\n"
    "        self.end_headers()\n"
    "        self.wfile.write(b'{}')\n"
    "    def log_message(self, *args): pass\n"
    "http.server.HTTPServer(('127.0.0.1', int(sys.argv[sys.argv.index('--port') + 1])), Handler).serve_forever()\n";

static char folder[] = "/tmp/llama_XXXXXX", model[100], old_path[4000];
static struct cm_loop *loop;
static struct cm_egress *egress;
static struct cm_llama *llama;
static unsigned readies;
static char url[100], why[600];

static void put_file(const char *name, const char *content, mode_t mode)
{
    char path[200];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    if (!f)
        abort();
    fputs(content, f);
    fclose(f);
    assert_int_equal(chmod(path, mode), 0);
}

/* Process of the last start; 0: there was none. */
static pid_t last_start(unsigned *ret_count, char *arguments)
{
    char path[200], line[500];
    pid_t pid = 0;

    snprintf(path, sizeof path, "%s/starts", folder);
    FILE *f = fopen(path, "r");
    *ret_count = 0;
    while (f && fgets(line, sizeof line, f)) {
        pid = atoi(line);
        if (arguments)
            snprintf(arguments, 500, "%s", strchr(line, ' ') + 1);
        ++*ret_count;
    }
    if (f)
        fclose(f);
    return pid;
}

static void on_ready(void *arg, const char *base_url, const struct cm_err *err)
{
    assert_ptr_equal(arg, &readies);
    readies++;
    snprintf(url, sizeof url, "%s", base_url ? base_url : "");
    snprintf(why, sizeof why, "%s", err ? err->text : "");
    cm_loop_stop(loop);
}

static int begin(void **state)
{
    const struct cm_egress_config config = {8, 8, NULL};
    struct cm_err err;
    char path[4200];

    (void)state;
    snprintf(old_path, sizeof old_path, "%s", getenv("PATH"));
    strcpy(folder, "/tmp/llama_XXXXXX");
    assert_non_null(mkdtemp(folder));
    put_file("llama-server", script, 0755);
    put_file("model.gguf", "GGUF and more", 0644);
    snprintf(model, sizeof model, "%s/model.gguf", folder);
    snprintf(path, sizeof path, "%s:%s", folder, old_path);
    setenv("PATH", path, 1);
    setenv("RLM_API_KEY", "not for it", 1);
    setenv("LLAMA_API_KEY", "it would refuse us", 1);
    loop = cm_loop_new(&err);
    assert_int_equal(cm_egress_open(loop, &config, &egress, &err), 0);
    readies = 0;
    return 0;
}

static int end(void **state)
{
    char command[100];

    (void)state;
    llama = cm_llama_free(llama);
    egress = cm_egress_free(egress);
    cm_loop_run(loop);
    cm_loop_free(loop);
    setenv("PATH", old_path, 1);
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static int start(const char *how, const char *path)
{
    struct cm_err err = {0};

    put_file("how", how, 0644);
    int rc = cm_llama_open(loop, egress, path, on_ready, &readies, &llama, &err);
    snprintf(why, sizeof why, "%s", err.text);
    assert_int_equal(readies, 0);
    if (rc == 0)
        cm_loop_run(loop);
    return rc;
}

static void it_answers_and_ends_with_us(void **state)
{
    char arguments[500], want[600];
    unsigned starts;

    (void)state;
    assert_int_equal(start("answer", folder), 0);
    assert_string_equal(why, "");
    unsigned port = (unsigned)atoi(url + strlen("http://127.0.0.1:"));
    assert_in_range(port, 20000, 32000);
    pid_t pid = last_start(&starts, arguments);
    assert_int_equal(starts, 1);
    snprintf(want, sizeof want, "--host 127.0.0.1 --port %u --model %s\n", port, model);
    assert_string_equal(arguments, want);
    assert_int_equal(kill(pid, 0), 0);
    llama = cm_llama_free(llama);
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(readies, 1);
}

static void its_last_words_are_told(void **state)
{
    unsigned starts;

    (void)state;
    assert_int_equal(start("die", model), 0);
    assert_string_equal(url, "");
    assert_string_equal(why, "llama-server ended with status 3: [31merror: bad magic");
    last_start(&starts, NULL);
    assert_int_equal(starts, 1);
}

static void a_lost_port_is_chosen_anew(void **state)
{
    unsigned starts;

    (void)state;
    assert_int_equal(start("taken", model), 0);
    assert_string_equal(why, "");
    last_start(&starts, NULL);
    assert_int_equal(starts, 2);
}

static void ports_are_not_lost_for_ever(void **state)
{
    unsigned starts;

    (void)state;
    assert_int_equal(start("always taken", model), 0);
    assert_string_equal(why, "llama-server ended with status 1: couldn't bind HTTP server socket");
    last_start(&starts, NULL);
    assert_int_equal(starts, 4);
}

static void look_for_another(void *arg)
{
    unsigned starts;

    (void)arg;
    last_start(&starts, NULL);
    if (starts == 2)
        cm_loop_stop(loop);
}

static void it_is_started_again(void **state)
{
    struct cm_timer *t = cm_timer_open(loop, look_for_another, NULL, NULL);
    char before[500], after[500];
    unsigned starts;

    (void)state;
    assert_int_equal(start("answer", model), 0);
    pid_t pid = last_start(&starts, before);
    kill(pid, SIGKILL);
    cm_timer_start(t, 20, 20);
    cm_loop_run(loop);
    cm_timer_close(t);
    assert_int_not_equal(last_start(&starts, after), pid);
    assert_string_equal(after, before); /* callers hold the URL: the port is the same */
    assert_int_equal(readies, 1);
}

/* A process between that dies without a word to its child. */
static void it_does_not_outlive_us(void **state)
{
    siginfo_t info;
    int ends[2];
    pid_t pid = 0;
    unsigned starts;

    (void)state;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    assert_int_equal(pipe(ends), 0);
    pid_t between = fork();
    if (between == 0) {
        start("answer", model);
        if (write(ends[1], "x", 1) != 1)
            _exit(2);
        pause();
        _exit(1);
    }
    char byte;
    assert_int_equal(read(ends[0], &byte, 1), 1);
    pid = last_start(&starts, NULL);
    assert_true(pid > 0);
    kill(between, SIGKILL);
    waitpid(between, NULL, 0);
    while (waitid(P_PID, (id_t)pid, &info, WEXITED) < 0 && errno == EINTR)
        ;
    assert_int_equal(info.si_code, CLD_KILLED);
    close(ends[0]);
    close(ends[1]);
}

static void what_is_missing_is_said_at_once(void **state)
{
    char path[200];

    (void)state;
    assert_true(start("answer", "/nonexistent.gguf") < 0);
    assert_non_null(strstr(why, "/nonexistent.gguf"));
    snprintf(path, sizeof path, "%s/how", folder);
    assert_true(start("answer", path) < 0);
    assert_non_null(strstr(why, "is no GGUF file"));
    setenv("PATH", "/nonexistent::/", 1);
    assert_true(start("answer", model) < 0);
    assert_non_null(strstr(why, "llama-server is not on the PATH"));
    assert_int_equal(readies, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)
        TEST(it_answers_and_ends_with_us),     TEST(its_last_words_are_told), TEST(a_lost_port_is_chosen_anew),
        TEST(ports_are_not_lost_for_ever),     TEST(it_is_started_again),     TEST(it_does_not_outlive_us),
        TEST(what_is_missing_is_said_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

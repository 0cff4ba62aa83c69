/* Runs one program as the first process of a container, and tells all of it on the container's log.
 *
 *   launch [-C FOLDER] [-i FILE] -- PROGRAM [ARGUMENT]...
 *   launch -p
 *
 * A container's log mixes standard output and standard error, gives a last line without an end one, and says nothing of
 * what was used. So each line of the log is a record:
 *
 *   o TEXT     a line of standard output                  e TEXT     a line of standard error
 *   O TEXT     a part of a line, which the next "o" or    E TEXT     the same of standard error
 *              "O" goes on with
 *   = JSON     the last record: how it ended, what was used, how many bytes there were
 *
 * A record has at most 8 KiB, so that no container runtime cuts it. When the program ends, everything that it started
 * is killed: it is the first process, so the kernel does that when it exits.
 *
 * It exits as the program does: with its code, or with 128 and the number of the signal. Where the program cannot be
 * started the last record has "error" and "errno", and the code is 126.
 *
 * With -p it tries to connect to the cluster's API server, and exits with 0 where it could and with 1 where it could not.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LONGEST = 8000, NOT_STARTED = 126, SIGNALLED = 128, DRAIN_MILLISECONDS = 200, FLUSH_MILLISECONDS = 100,
       CONNECT_MILLISECONDS = 3000 };

struct stream {
  char whole, part; /* The names of its records. */
  int fd;           /* Closed: -1. */
  size_t length;
  unsigned long long bytes;
  char text[LONGEST];
};

static struct stream streams[] = {{'o', 'O', -1, 0, 0, ""}, {'e', 'E', -1, 0, 0, ""}};

static void write_all(const char *text, size_t length) {
  while (length > 0) {
    ssize_t written = write(STDOUT_FILENO, text, length);
    if (written < 0) {
      if (errno == EINTR) continue;
      _exit(NOT_STARTED); /* Nobody reads the log any more. */
    }
    text += written;
    length -= (size_t)written;
  }
}

static void put_record(char name, const char *text, size_t length) {
  char record[LONGEST + 3];
  record[0] = name;
  record[1] = ' ';
  memcpy(record + 2, text, length);
  record[length + 2] = '\n';
  write_all(record, length + 3); /* At once: what is between two records is nobody's. */
}

static void flush_part(struct stream *stream) {
  if (stream->length > 0) put_record(stream->part, stream->text, stream->length);
  stream->length = 0;
}

static void add(struct stream *stream, const char *text, size_t length) {
  stream->bytes += length;
  while (length > 0) {
    const char *end = memchr(text, '\n', length);
    size_t line = end ? (size_t)(end - text) : length;
    size_t room = LONGEST - stream->length;
    size_t taken = line < room ? line : room;
    memcpy(stream->text + stream->length, text, taken);
    stream->length += taken;
    text += taken;
    length -= taken;
    if (taken == line && end) {
      put_record(stream->whole, stream->text, stream->length);
      stream->length = 0;
      text += 1;
      length -= 1;
    } else if (stream->length == LONGEST) {
      flush_part(stream);
    }
  }
}

/* Gives 1 where there may be more. */
static int take(struct stream *stream) {
  char text[65536];
  ssize_t length = read(stream->fd, text, sizeof text);
  if (length > 0) {
    add(stream, text, (size_t)length);
    return 1;
  }
  if (length < 0 && (errno == EINTR || errno == EAGAIN)) return errno == EINTR;
  close(stream->fd);
  stream->fd = -1;
  return 0;
}

/* The number at the beginning of a file, or after `key` in it; -1: there is none. */
static long long number_in(const char *path, const char *key) {
  char text[4096];
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  ssize_t length = read(fd, text, sizeof text - 1);
  close(fd);
  if (length <= 0) return -1;
  text[length] = 0;
  char *at = key ? strstr(text, key) : text;
  if (!at) return -1;
  char *end;
  at += key ? strlen(key) : 0;
  long long number = strtoll(at, &end, 10);
  return end == at ? -1 : number;
}

static void put_end(int code, int number, const char *error, int why) {
  struct rusage used;
  getrusage(RUSAGE_CHILDREN, &used);
  long long cpu = number_in("/sys/fs/cgroup/cpu.stat", "usage_usec ");
  long long v1 = number_in("/sys/fs/cgroup/cpuacct/cpuacct.usage", NULL);
  if (cpu < 0 && v1 >= 0) cpu = v1 / 1000;
  if (cpu < 0)
    cpu = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000LL + used.ru_utime.tv_usec + used.ru_stime.tv_usec;
  long long memory = number_in("/sys/fs/cgroup/memory.peak", NULL);
  if (memory < 0) memory = number_in("/sys/fs/cgroup/memory/memory.max_usage_in_bytes", NULL);
  if (memory < 0) memory = used.ru_maxrss * 1024LL;
  long long kills = number_in("/sys/fs/cgroup/memory.events", "oom_kill ");
  if (kills < 0) kills = number_in("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill ");
  long long throttled = number_in("/sys/fs/cgroup/cpu.stat", "throttled_usec ");
  long long tasks = number_in("/sys/fs/cgroup/pids.peak", NULL);
  char text[1024];
  int length = snprintf(text, sizeof text,
    "{\"exitCode\":%d,\"signal\":%d,\"stdoutBytes\":%llu,\"stderrBytes\":%llu,\"cpuMicroseconds\":%lld,"
    "\"maxMemoryBytes\":%lld,\"oomKills\":%lld,\"throttledMicroseconds\":%lld,\"maxTasks\":%lld,"
    "\"readBlocks\":%ld,\"writtenBlocks\":%ld,\"error\":\"%s\",\"errno\":%d}",
    code, number, streams[0].bytes, streams[1].bytes, cpu, memory, kills < 0 ? 0 : kills,
    throttled < 0 ? 0 : throttled, tasks < 0 ? 0 : tasks, used.ru_inblock, used.ru_oublock, error, why);
  flush_part(&streams[0]);
  flush_part(&streams[1]);
  put_record('=', text, (size_t)length);
}

static int fail(const char *error, int why) {
  put_end(NOT_STARTED, 0, error, why);
  return NOT_STARTED;
}

/* In the child: become the program, or tell the parent why not. */
static void become(char **argv, const char *folder, int input, int output, int errors, int told) {
  struct { char what; int why; } failure = {'x', 0};
  sigset_t none;
  sigemptyset(&none);
  setsid();
  if (folder && chdir(folder) != 0) {
    failure.what = 'd';
  } else {
    dup2(input, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(errors, STDERR_FILENO);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvp(argv[0], argv);
  }
  failure.why = errno;
  ssize_t written = write(told, &failure, sizeof failure);
  _exit(written == sizeof failure ? NOT_STARTED : NOT_STARTED + 1);
}

/* What the program has written and nobody has read yet. It may have left somebody behind who holds a pipe open. */
static void drain(void) {
  struct timespec began, now;
  clock_gettime(CLOCK_MONOTONIC, &began);
  for (size_t i = 0; i < 2; i++) {
    while (streams[i].fd >= 0) {
      struct pollfd ready = {streams[i].fd, POLLIN, 0};
      clock_gettime(CLOCK_MONOTONIC, &now);
      long long spent = (now.tv_sec - began.tv_sec) * 1000LL + (now.tv_nsec - began.tv_nsec) / 1000000;
      if (spent > DRAIN_MILLISECONDS || poll(&ready, 1, 0) <= 0 || !take(&streams[i])) break;
    }
  }
}

/* Whether the API server accepts a connection. The kubelet names it to every container. */
static int connects(void) {
  const char *host = getenv("KUBERNETES_SERVICE_HOST"), *port = getenv("KUBERNETES_SERVICE_PORT");
  struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *address;
  if (!host || !port || getaddrinfo(host, port, &hints, &address)) return 0;
  int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return 0;
  if (connect(fd, address->ai_addr, address->ai_addrlen) == 0) return 1;
  struct pollfd ready = {fd, POLLOUT, 0};
  int error = 0;
  socklen_t length = sizeof error;
  return errno == EINPROGRESS && poll(&ready, 1, CONNECT_MILLISECONDS) == 1 &&
         getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0;
}

int main(int argc, char **argv) {
  const char *folder = NULL, *from = "/dev/null";
  int option;
  while ((option = getopt(argc, argv, "+C:i:p")) != -1) {
    if (option == 'p') return !connects();
    if (option == 'C') folder = optarg;
    else if (option == 'i') from = optarg;
    else return fail("usage", EINVAL);
  }
  if (optind >= argc) return fail("usage", EINVAL);

  sigset_t handled;
  sigemptyset(&handled);
  sigaddset(&handled, SIGCHLD);
  sigaddset(&handled, SIGTERM);
  sigaddset(&handled, SIGINT);
  sigprocmask(SIG_BLOCK, &handled, NULL);
  int signals = signalfd(-1, &handled, SFD_CLOEXEC);
  int output[2], errors[2], told[2];
  int input = open(from, O_RDONLY | O_CLOEXEC);
  if (input < 0) return fail("stdin", errno);
  if (signals < 0 || pipe2(output, O_CLOEXEC) || pipe2(errors, O_CLOEXEC) || pipe2(told, O_CLOEXEC))
    return fail("pipe", errno);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  prctl(PR_SET_DUMPABLE, 0); /* The program has the same user, and must not write records by /proc/1/fd/1. */

  pid_t program = fork();
  if (program < 0) return fail("fork", errno);
  if (program == 0) become(argv + optind, folder, input, output[1], errors[1], told[1]);
  close(input);
  close(output[1]);
  close(errors[1]);
  close(told[1]);
  streams[0].fd = output[0];
  streams[1].fd = errors[0];
  struct { char what; int why; } failure;
  ssize_t length;
  do length = read(told[0], &failure, sizeof failure);
  while (length < 0 && errno == EINTR);
  if (length == sizeof failure) return fail(failure.what == 'd' ? "chdir" : "exec", failure.why);

  int status = 0;
  for (int over = 0; !over;) {
    struct pollfd ready[] = {{signals, POLLIN, 0}, {streams[0].fd, POLLIN, 0}, {streams[1].fd, POLLIN, 0}};
    int waits_for_more = streams[0].length || streams[1].length;
    int count = poll(ready, 3, waits_for_more ? FLUSH_MILLISECONDS : -1);
    if (count < 0 && errno != EINTR) return fail("poll", errno);
    if (count == 0) { /* A prompt, or a bar that grows: somebody may be looking. */
      flush_part(&streams[0]);
      flush_part(&streams[1]);
    }
    if (count <= 0) continue;
    for (size_t i = 0; i < 2; i++)
      if (ready[i + 1].revents) take(&streams[i]);
    if (ready[0].revents) {
      struct signalfd_siginfo info;
      if (read(signals, &info, sizeof info) != sizeof info) continue;
      if (info.ssi_signo != SIGCHLD) kill(-program, (int)info.ssi_signo); /* To all of its session's first group. */
      int each;
      for (pid_t pid; (pid = waitpid(-1, &each, WNOHANG)) > 0;)
        if (pid == program) {
          status = each;
          over = 1;
        }
    }
  }
  drain();
  int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  int code = number ? SIGNALLED + number : WEXITSTATUS(status);
  put_end(code, number, "", 0);
  return code;
}

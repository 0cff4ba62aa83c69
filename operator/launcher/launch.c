/* Runs one program as the first process of a container, and tells all of it on the container's log.
 *
 *   launch [-C FOLDER] [-i FILE] [-I FOLDER -i PATH] [-k SECONDS] [-r FILE]... [-P FOLDER -m BYTES -a|-A PATTERN]...
 *       -- PROGRAM [ARGUMENT]...
 *   launch -p
 *
 * A container's log mixes standard output and standard error, gives a last line without an end one, and says nothing of
 * what was used. So each line of the log is a record:
 *
 *   o TEXT     a line of standard output                  e TEXT     a line of standard error
 *   O TEXT     a part of a line, which the next "o" or    E TEXT     the same of standard error
 *              "O" goes on with
 *   r N TEXT   of the Nth file that -r names, from 0: its first 4097 bytes in base64; "!" and the system's number of an
 *              error where it cannot be read; no record where it is not there
 *   + JSON     the program has ended, as "=" tells it; what it left is told now
 *   a b c n    of the files below FOLDER that each PATTERN matches: see `files.c`. Those of -a only where the program
 *              succeeded
 *   = JSON     the last record: how it ended, what was used, how many bytes there were. Where "more" is not 0 all files
 *              are told once more, for who has lost some of it, and then comes another one
 *
 * With -k the program is killed so many seconds after the first signal from outside of the container: what ends the
 * container waits longer than that, so that files can be told then, too. A signal that comes while they are told keeps
 * them from being told once more. With -I the input is the regular file PATH in FOLDER, and no link leads to it.
 *
 * A record has at most 8 KiB, so that no container runtime cuts it. When the program ends, everything that it started
 * is killed, and the last record comes after that.
 *
 * It exits as the program does: with its code, or with 128 and the number of the signal. Where the program cannot be
 * started the last record has "error" and "errno", and the code is 126. Where nobody reads the log the program is ended,
 * and the code is that of a program that was killed.
 *
 * The program has the same user. That it writes no records of its own rests on this: the log is open nowhere but here,
 * and a process that is not dumpable lends nobody its descriptors or its memory.
 *
 * With -p it tries to connect to the cluster's API server, and exits with 0 where it could, with 1 where it could not, and
 * with 2 where that cannot be tried. With -w before, it tries again for so many seconds, until it cannot. With -w the
 * program, too, is started only when that is so: whoever keeps a pod from the network may know of it a moment late.
 */

#define _GNU_SOURCE
#include "launch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
  PIECE = 4096, /* What a pipe takes without blocking when poll() says that it has room. */
  NOT_STARTED = 126,
  SIGNALLED = 128,
  LOG_LOST = SIGNALLED + SIGKILL,
  FLUSH_MILLISECONDS = 100,
  CONNECT_MILLISECONDS = 3000,
  REFUSED_MILLISECONDS = 300, /* An API server answers far sooner. Each program waits for this where packets are dropped. */
  AGAIN_MILLISECONDS = 100,
  MOST_INHERITED = 1024,
  MOST_RESULTS = 32,
  RESULT_BYTES = 4097, /* One more than a result may have, so that a larger one is told from it. */
};

struct stream {
  char whole, part; /* The names of its records. */
  int fd;           /* Closed: -1. */
  size_t length;
  long long since; /* When the first byte of `text` came, in milliseconds. */
  unsigned long long bytes;
  char text[LONGEST];
};

struct failure {
  int what; /* 'd': the folder, 'x': the program. */
  int why;
};

static struct stream streams[] = {{'o', 'O', -1, 0, 0, 0, ""}, {'e', 'E', -1, 0, 0, 0, ""}};
static char pending[1 << 16]; /* Records for the log. */
static size_t pending_length;
static int signals = -1;
static pid_t program; /* 0: there is none, or not any more. */
static int status, over;
static long grace = -1;        /* Milliseconds; -1: for ever. */
static long long kill_at = -1; /* When the program is killed; -1: it is not to be. */
static int told_to_stop;       /* After the program had ended. */
static unsigned long long logged_bytes;

long long milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Pass on what others want of the program, and learn what has ended. Does not block. */
static void handle_signals(void) {
  struct signalfd_siginfo info;
  while (read(signals, &info, sizeof info) == (ssize_t)sizeof info) {
    if (info.ssi_signo == SIGCHLD || info.ssi_signo == SIGPIPE) continue;
    int is_from_outside = info.ssi_pid == 0;
    if (!program && is_from_outside) told_to_stop = 1;
    if (!program) continue;
    if (is_from_outside && grace >= 0 && kill_at < 0) kill_at = milliseconds() + grace;
    kill(-program, (int)info.ssi_signo); /* To all of its session's first group, which it cannot leave. */
    kill(-program, SIGCONT);             /* A stopped one would not notice. */
  }
  int ended;
  for (pid_t pid; (pid = waitpid(-1, &ended, WNOHANG)) > 0;)
    if (pid == program) {
      status = ended;
      over = 1;
      program = 0;
    }
}

/* End what was started. As the first process, that is everything there is. */
static void kill_all(void) {
  if (getpid() == 1) {
    kill(-1, SIGKILL);
    int ended;
    for (pid_t pid; (pid = waitpid(-1, &ended, 0)) > 0 || errno == EINTR;)
      if (pid > 0 && pid == program) status = ended;
  } else if (program) {
    kill(-program, SIGKILL);
  }
}

/* As long as `wait` (-1: for ever), but no longer than until the program is to be killed. */
static int until_kill(int wait) {
  if (kill_at < 0 || !program) return wait;
  long long left = kill_at - milliseconds();
  if (left > 0) return wait < 0 || left < wait ? (int)left : wait;
  kill_at = -1;
  grace = -1;
  kill(getpid() == 1 ? -1 : -program, SIGKILL);
  return wait;
}

static _Noreturn void lose_log(void) {
  kill_all();
  _exit(LOG_LOST);
}

/* Signals are heard while the log's reader is slow. */
void write_pending(void) {
  const char *text = pending;
  while (pending_length > 0) {
    struct pollfd ready[] = {{STDOUT_FILENO, POLLOUT, 0}, {signals, POLLIN, 0}};
    if (poll(ready, 2, until_kill(-1)) < 0) {
      if (errno == EINTR) continue;
      lose_log();
    }
    if (ready[1].revents) handle_signals();
    if (!ready[0].revents) continue;
    ssize_t written = write(STDOUT_FILENO, text, pending_length < PIECE ? pending_length : PIECE);
    if (written < 0) {
      if (errno == EINTR || errno == EAGAIN) continue;
      lose_log();
    }
    text += written;
    pending_length -= (size_t)written;
  }
}

void pause_for(int wait) {
  struct pollfd ready = {signals, POLLIN, 0};
  if (poll(&ready, 1, wait) > 0) handle_signals();
}

unsigned long long logged(void) { return logged_bytes; }

void put_record(char name, const char *text, size_t length) {
  if (pending_length + length + 3 > sizeof pending) write_pending();
  char *record = pending + pending_length;
  record[0] = name;
  record[1] = ' ';
  memcpy(record + 2, text, length);
  record[length + 2] = '\n';
  pending_length += length + 3;
  logged_bytes += length + 3;
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
    if (stream->length == 0) stream->since = milliseconds();
    memcpy(stream->text + stream->length, text, taken);
    stream->length += taken;
    text += taken;
    length -= taken;
    if (end && taken == line) {
      put_record(stream->whole, stream->text, stream->length);
      stream->length = 0;
      text += 1;
      length -= 1;
    } else if (stream->length == LONGEST) {
      flush_part(stream);
    }
  }
}

/* At most `most` bytes. Gives how many there were. */
static size_t take(struct stream *stream, size_t most) {
  char text[1 << 16];
  ssize_t length;
  do length = read(stream->fd, text, most < sizeof text ? most : sizeof text);
  while (length < 0 && errno == EINTR);
  if (length > 0) {
    add(stream, text, (size_t)length);
    return (size_t)length;
  }
  close(stream->fd);
  stream->fd = -1;
  return 0;
}

/* What was written and not read yet. Somebody outside may have the pipe, too, and write on. */
static void drain(struct stream *stream) {
  int left = 0;
  if (stream->fd < 0 || ioctl(stream->fd, FIONREAD, &left) != 0) return;
  while (left > 0 && stream->fd >= 0) left -= (int)take(stream, (size_t)left);
}

/* A prompt, or a bar that grows: somebody may be looking. Gives how long to wait for the next one; -1: for ever. */
static int flush_old_parts(void) {
  int wait = -1;
  for (size_t i = 0; i < 2; i++) {
    if (streams[i].length == 0) continue;
    long long left = streams[i].since + FLUSH_MILLISECONDS - milliseconds();
    if (left <= 0) flush_part(&streams[i]);
    else if (wait < 0 || left < wait) wait = (int)left;
  }
  return wait;
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
  const char *at = text;
  if (key) {
    for (at = strstr(text, key); at && at != text && at[-1] != '\n';) at = strstr(at + 1, key);
    if (!at) return -1;
    at += strlen(key);
  }
  if (*at < '0' || *at > '9') return -1;
  return strtoll(at, NULL, 10); /* What is more than it holds is the most that it holds. */
}

static void put_end(char name, int code, int number, const char *error, int why, int more) {
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
  v1 = number_in("/sys/fs/cgroup/cpu/cpu.stat", "throttled_time ");
  if (throttled < 0 && v1 >= 0) throttled = v1 / 1000;
  long long tasks = number_in("/sys/fs/cgroup/pids.peak", NULL);
  char text[1024];
  int length = snprintf(text, sizeof text,
    "{\"exitCode\":%d,\"signal\":%d,\"stdoutBytes\":%llu,\"stderrBytes\":%llu,\"cpuMicroseconds\":%lld,"
    "\"maxMemoryBytes\":%lld,\"oomKills\":%lld,\"throttledMicroseconds\":%lld,\"maxTasks\":%lld,"
    "\"readBlocks\":%ld,\"writtenBlocks\":%ld,\"error\":\"%s\",\"errno\":%d,\"more\":%d}",
    code, number, streams[0].bytes, streams[1].bytes, cpu, memory, kills < 0 ? 0 : kills,
    throttled < 0 ? 0 : throttled, tasks < 0 ? 0 : tasks, used.ru_inblock, used.ru_oublock, error, why, more);
  flush_part(&streams[0]);
  flush_part(&streams[1]);
  put_record(name, text, (size_t)length);
  write_pending();
}

size_t base64(char *into, const unsigned char *bytes, size_t length) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  size_t written = 0;
  for (size_t i = 0; i < length; i += 3) {
    size_t left = length - i;
    unsigned three = bytes[i] << 16 | (left > 1 ? bytes[i + 1] << 8 : 0) | (left > 2 ? bytes[i + 2] : 0);
    into[written++] = digits[three >> 18];
    into[written++] = digits[three >> 12 & 63];
    into[written++] = left > 1 ? digits[three >> 6 & 63] : '=';
    into[written++] = left > 2 ? digits[three & 63] : '=';
  }
  return written;
}

/* What the program left in a file. It can be no more than its user may read, and no link and no pipe. */
static void put_result(int number, const char *path) {
  unsigned char bytes[RESULT_BYTES];
  char text[LONGEST];
  int length = snprintf(text, sizeof text, "%d ", number), why = 0;
  size_t had = 0;
  struct stat about;
  int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP)) return;
  if (fd < 0) {
    why = errno;
  } else if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) {
    close(fd);
    return;
  } else {
    for (ssize_t some; had < sizeof bytes && (some = read(fd, bytes + had, sizeof bytes - had)) != 0;) {
      if (some < 0 && errno == EINTR) continue;
      if (some < 0) {
        why = errno;
        break;
      }
      had += (size_t)some;
    }
    close(fd);
  }
  if (why) length += snprintf(text + length, sizeof text - (size_t)length, "!%d", why);
  else length += (int)base64(text + length, bytes, had);
  put_record('r', text, (size_t)length);
}

/* `error` is a word of this program's own: it needs no escapes. */
static int fail(const char *error, int why) {
  put_end('=', NOT_STARTED, 0, error, why, 0);
  return NOT_STARTED;
}

/* As execvp(), which in some libraries gives a file that is no program to a shell. */
static void exec_on_path(char **argv) {
  if (strchr(argv[0], '/') || !*argv[0]) {
    execv(argv[0], argv);
    return;
  }
  const char *folders = getenv("PATH");
  if (!folders) folders = "/usr/local/bin:/usr/bin:/bin";
  int why = ENOENT;
  for (const char *end; folders; folders = *end ? end + 1 : NULL) {
    char path[4096];
    end = strchrnul(folders, ':');
    int length = snprintf(path, sizeof path, "%.*s/%s", (int)(end - folders), folders, argv[0]);
    if (path[0] != '/' || length >= (int)sizeof path) continue; /* Where it is would depend on the folder. */
    execv(path, argv);
    if (errno != ENOENT && errno != ENOTDIR && why == ENOENT) why = errno;
  }
  errno = why;
}

/* What is ignored stays so for a new program. The C library keeps two signals to itself, and so leaves these. */
static void default_signals(void) {
  enum { SIGNALS = 64, MASK_BYTES = SIGNALS / 8 };
  static const unsigned long usual[4]; /* The kernel's struct sigaction with SIG_DFL, which is 0. */
  for (int number = 1; number <= SIGNALS; number++) syscall(SYS_rt_sigaction, number, usual, NULL, MASK_BYTES);
}

/* In the child: become the program, or tell the parent why not. */
static _Noreturn void become(char **argv, const char *folder, int input, int output, int errors, int told) {
  struct failure failure = {'d', 0};
  setsid();
  if (!folder || chdir(folder) == 0) {
    failure.what = 'x';
    if (dup2(input, STDIN_FILENO) >= 0 && dup2(output, STDOUT_FILENO) >= 0 && dup2(errors, STDERR_FILENO) >= 0) {
      default_signals();
      sigset_t none;
      sigemptyset(&none);
      sigprocmask(SIG_SETMASK, &none, NULL);
      exec_on_path(argv);
    }
  }
  failure.why = errno;
  ssize_t written = write(told, &failure, sizeof failure);
  _exit(written == (ssize_t)sizeof failure ? NOT_STARTED : NOT_STARTED + 1);
}

/* Nothing but the three usual descriptors, each of which is something. */
static void tidy_descriptors(void) {
  if (fcntl(STDOUT_FILENO, F_GETFD) < 0) _exit(LOG_LOST);
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd) _exit(LOG_LOST);
  if (syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, 0) == 0) return;
  for (int fd = STDERR_FILENO + 1; fd < MOST_INHERITED; fd++) close(fd); /* Before Linux 5.9. */
}

static int listen_to_signals(void) {
  static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
  sigset_t handled;
  sigfillset(&handled); /* An image says which of them is to stop it. */
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) sigdelset(&handled, own[i]);
  sigprocmask(SIG_BLOCK, &handled, NULL);
  signal(SIGCHLD, SIG_DFL); /* Ignored, it would leave nothing to wait for. */
  return signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK);
}

enum { CONNECTED, REFUSED, NOT_TRIED };

/* Whether the API server accepts a connection in so much time: its address is in the environment of every container. */
static int try_to_connect(int most_milliseconds) {
  const char *host = getenv("KUBERNETES_SERVICE_HOST"), *port = getenv("KUBERNETES_SERVICE_PORT");
  if (!host || !port || atoi(port) <= 0 || atoi(port) > UINT16_MAX) return NOT_TRIED;
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = v4.sin_port};
  int is_v4 = inet_pton(AF_INET, host, &v4.sin_addr) == 1;
  if (!is_v4 && inet_pton(AF_INET6, host, &v6.sin6_addr) != 1) return NOT_TRIED;
  int fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return NOT_TRIED;
  int connected = is_v4 ? connect(fd, (struct sockaddr *)&v4, sizeof v4) : connect(fd, (struct sockaddr *)&v6, sizeof v6);
  int error = connected == 0 ? 0 : errno, count = 1;
  if (error == EINPROGRESS) {
    struct pollfd ready = {fd, POLLOUT, 0};
    long long ends = milliseconds() + most_milliseconds;
    do {
      long long left = ends - milliseconds();
      count = poll(&ready, 1, left > 0 ? (int)left : 0);
    } while (count < 0 && errno == EINTR);
    socklen_t length = sizeof error;
    if (count > 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) count = -1;
  }
  close(fd);
  if (count < 0) return NOT_TRIED;
  return count == 0 || error ? REFUSED : CONNECTED;
}

/* The same, until it does not; for `most_milliseconds`, and until a signal comes. `answer_milliseconds` is for each try. */
static int until_refused(long long most_milliseconds, int answer_milliseconds) {
  long long ends = milliseconds() + most_milliseconds;
  struct pollfd told = {signals, POLLIN, 0};
  int found;
  do found = try_to_connect(answer_milliseconds);
  while (found == CONNECTED && milliseconds() < ends && poll(&told, 1, AGAIN_MILLISECONDS) == 0);
  return found;
}

int main(int argc, char **argv) {
  tidy_descriptors();
  signals = listen_to_signals();
  if (signals < 0) return fail("signals", errno);
  if (prctl(PR_SET_DUMPABLE, 0) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_CHILD_SUBREAPER, 1))
    return fail("prctl", errno);

  const char *folder = NULL, *from = "/dev/null", *below = NULL, *place = NULL, *results[MOST_RESULTS];
  unsigned long long most = 0;
  int option, wanted = 0;
  long held = 0;
  opterr = 0;
  while ((option = getopt(argc, argv, "+C:i:I:k:r:P:m:a:A:w:p")) != -1) {
    if (option == 'p') return held ? until_refused(held, CONNECT_MILLISECONDS) : try_to_connect(CONNECT_MILLISECONDS);
    if (option == 'w') held = strtol(optarg, NULL, 10) * 1000;
    else if (option == 'C') folder = optarg;
    else if (option == 'i') from = optarg;
    else if (option == 'I') below = optarg;
    else if (option == 'k') grace = strtol(optarg, NULL, 10) * 1000;
    else if (option == 'P') place = optarg;
    else if (option == 'm') most = strtoull(optarg, NULL, 10);
    else if ((option == 'a' || option == 'A') && want_files(place, optarg, most, option == 'A') == 0) continue;
    else if (option == 'r' && wanted < MOST_RESULTS) results[wanted++] = optarg;
    else return fail("usage", EINVAL);
  }
  if (optind >= argc) return fail("usage", EINVAL);
  if (held && until_refused(held, REFUSED_MILLISECONDS) != REFUSED) return fail("network", ETIMEDOUT);

  int output[2], errors[2], told[2];
  int input = below ? open_file_in(below, from) : open(from, O_RDONLY | O_CLOEXEC);
  if (input < 0) return fail("stdin", errno);
  if (pipe2(output, O_CLOEXEC) || pipe2(errors, O_CLOEXEC) || pipe2(told, O_CLOEXEC)) return fail("pipe", errno);
  program = fork();
  if (program < 0) {
    program = 0;
    return fail("fork", errno);
  }
  if (program == 0) become(argv + optind, folder, input, output[1], errors[1], told[1]);
  close(input);
  close(output[1]);
  close(errors[1]);
  close(told[1]);
  streams[0].fd = output[0];
  streams[1].fd = errors[0];
  struct failure failure;
  ssize_t length;
  do length = read(told[0], &failure, sizeof failure);
  while (length < 0 && errno == EINTR);
  close(told[0]);
  if (length == (ssize_t)sizeof failure) return fail(failure.what == 'd' ? "chdir" : "exec", failure.why);

  while (!over) {
    int wait = flush_old_parts();
    write_pending();
    wait = until_kill(wait);
    if (over) break; /* It was told of meanwhile. */
    struct pollfd ready[] = {{signals, POLLIN, 0}, {streams[0].fd, POLLIN, 0}, {streams[1].fd, POLLIN, 0}};
    if (poll(ready, 3, wait) < 0 && errno != EINTR) lose_log();
    for (size_t i = 0; i < 2; i++)
      if (ready[i + 1].revents) take(&streams[i], SIZE_MAX);
    if (ready[0].revents) handle_signals();
  }
  kill_all();
  drain(&streams[0]);
  drain(&streams[1]);
  for (int i = 0; i < wanted; i++) put_result(i, results[i]);
  int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  int code = number ? SIGNALLED + number : WEXITSTATUS(status);
  int again = 0;
  if (files_wanted()) {
    program = 0;
    put_end('+', code, number, "", 0, 0);
    again = tell_files(code == 0) && !told_to_stop;
  }
  put_end('=', code, number, "", 0, again);
  if (again) {
    tell_files(code == 0);
    put_end('=', code, number, "", 0, 0);
  }
  return code;
}

/** `chiron completion`: scripts made of the commands as they are declared. */
import type { Command } from "commander";
import { FailureError } from "../volume/failure.ts";

interface Words {
  /** Without `chiron`: "", "mount", "replica add". */
  readonly path: string;
  readonly commands: readonly string[];
  readonly options: readonly string[];
}

export function completion(program: Command, shell: string): void {
  if (shell === "bash") process.stdout.write(bash(wordsOf(program, "")));
  else if (shell === "zsh")
    process.stdout.write(`autoload -U +X bashcompinit && bashcompinit\n${bash(wordsOf(program, ""))}`);
  else if (shell === "fish") process.stdout.write(fish(wordsOf(program, "")));
  else throw new FailureError("usage", `There is no completion for "${shell}": bash, zsh and fish are known`);
}

function wordsOf(command: Command, path: string): Words[] {
  const { commands, options } = command;
  const visible = commands.filter((each) => each.name() !== "mount-helper");
  const own: Words = {
    path,
    commands: visible.map((each) => each.name()),
    options: options.filter((option) => !option.hidden).flatMap((option) => [option.long ?? option.short ?? ""]),
  };
  return [own, ...visible.flatMap((each) => wordsOf(each, path === "" ? each.name() : `${path} ${each.name()}`))];
}

/** Commands whose first argument is a mount point of ours. */
const takesMount = /^(?:status|unmount|resync|verify|handover|replica \w+)$/;

function bash(all: readonly Words[]): string {
  const cases = all.map(({ path, commands, options }) => {
    const mounts = takesMount.test(path) ? " $(chiron list --quiet 2>/dev/null)" : "";
    return `    "${path}") words="${[...commands, ...options, "--help"].join(" ")}${mounts}" ;;`;
  });
  return `_chiron() {
  local current="\${COMP_WORDS[COMP_CWORD]}" path="" words="" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "\${COMP_WORDS[i]}" in
      -*) ;;
      *) if [ -z "$path" ] || [ "$path" = replica ]; then path="\${path:+$path }\${COMP_WORDS[i]}"; fi ;;
    esac
  done
  case "$path" in
${cases.join("\n")}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [ "$path" = mount ] && [[ "$current" != -* ]]; then COMPREPLY+=($(compgen -d -- "$current")); fi
}
complete -o nospace -o default -F _chiron chiron
`.replace("-o nospace ", "");
}

function fish(all: readonly Words[]): string {
  return all
    .flatMap(({ path, commands, options }) => {
      const seen = path
        .split(" ")
        .map((word) => `__fish_seen_subcommand_from ${word}`)
        .join("; and ");
      const condition = path === "" ? "__fish_use_subcommand" : seen;
      const mounts = takesMount.test(path)
        ? [`complete -c chiron -n '${condition}' -a '(chiron list --quiet 2>/dev/null)'`]
        : [];
      return [
        ...commands.map((name) => `complete -c chiron -f -n '${condition}' -a ${name}`),
        ...options
          .filter((name) => name.startsWith("--"))
          .map((name) => `complete -c chiron -n '${condition}' -l ${name.slice(2)}`),
        ...mounts,
      ];
    })
    .join("\n")
    .concat("\n");
}

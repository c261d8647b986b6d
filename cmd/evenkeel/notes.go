package main

import (
	"fmt"
	"io"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/term"
	"github.com/evenkeel/evenkeel/replicator"
)

// notes are what is too long for a table and stands below it. What is the same of
// many is said once.
type notes struct {
	list []note
	at   map[string]int // by what is said
}

type note struct {
	where, text string
	more        int // that it is said of too
}

// add notes something; nothing if the text is empty.
func (n *notes) add(where, text string) {
	if text == "" {
		return
	}
	if n.at == nil {
		n.at = map[string]int{}
	}
	if i, said := n.at[text]; said {
		n.list[i].more++
		return
	}
	n.at[text] = len(n.list)
	n.list = append(n.list, note{where: where, text: text})
}

func (n *notes) addTask(origin events.Origin, task replicator.TaskStatus) {
	for _, p := range task.Problems {
		n.add(fmt.Sprintf("%s of %s", task.Task, origin), p)
	}
}

func (n *notes) write(w io.Writer) error {
	for _, note := range n.list {
		where := note.where
		if note.more > 0 {
			where += fmt.Sprintf(" and %s more", term.Count(note.more))
		}
		if where != "" {
			where += ": "
		}
		if _, err := fmt.Fprintf(w, "\n! %s%s", where, note.text); err != nil {
			return err
		}
	}
	if len(n.list) > 0 {
		fmt.Fprintln(w)
	}
	return nil
}

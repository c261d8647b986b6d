package batch

// Mark frames a dense batch anew whose first timestamp is so many ms before that of
// its first record. The timestamps of records are relative to it, and so stay what
// they are: readers see no difference. But whoever looks at the head sees that this
// batch is not another one of the same records. A negative number marks as well.
func (r *Recoder) Mark(b Batch, backMillis int64) (Dense, error) {
	defer r.trim()
	s, err := r.scan(&b)
	if err != nil {
		return Dense{}, err
	}
	f := newFrame(r.room(b.Codec(), []Batch{b}))
	f.back = backMillis
	if err := r.fill(&f, &s); err != nil {
		return Dense{}, err
	}
	return r.finish(&f, b.Codec())
}

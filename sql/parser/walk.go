package parser

import "reflect"

// Walk calls visit for the node and, as long as visit returns true, for the nodes below it, in the order of the text.
// Names, aliases and other small structs that are held by value are passed through and not visited themselves.
func Walk(n Node, visit func(Node) bool) {
	walk(reflect.ValueOf(n), visit)
}

// walk uses reflection so that no child can be forgotten. It is no part of any row's path.
func walk(v reflect.Value, visit func(Node) bool) {
	switch v.Kind() {
	case reflect.Interface:
		walk(v.Elem(), visit)
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		if n, ok := v.Interface().(Node); ok && !visit(n) {
			return
		}
		walk(v.Elem(), visit)
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Uint8 {
			for i := range v.Len() {
				walk(v.Index(i), visit)
			}
		}
	case reflect.Struct:
		if v.Type() != reflect.TypeFor[Pos]() {
			for i := range v.NumField() {
				walk(v.Field(i), visit)
			}
		}
	}
}

// Equal tells whether two trees say the same, wherever their parts stood.
func Equal(a, b Node) bool { return equal(reflect.ValueOf(a), reflect.ValueOf(b)) }

func equal(a, b reflect.Value) bool {
	if a.IsValid() != b.IsValid() || a.IsValid() && a.Type() != b.Type() {
		return false
	}
	switch a.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Interface, reflect.Pointer:
		if a.IsNil() || b.IsNil() {
			return a.IsNil() == b.IsNil()
		}
		return equal(a.Elem(), b.Elem())
	case reflect.Slice:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !equal(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Struct:
		if a.Type() == reflect.TypeFor[Pos]() {
			return true
		}
		for i := range a.NumField() {
			if !equal(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	}
	return a.Equal(b)
}

// Options calls visit for every option of a statement, whether it stands in WITH, in SET or in a hint. What visit puts in
// the place of a value is kept.
func Options(n Node, visit func(key string, value *string)) {
	options(reflect.ValueOf(n), visit)
}

func options(v reflect.Value, visit func(key string, value *string)) {
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		if !v.IsNil() {
			options(v.Elem(), visit)
		}
	case reflect.Slice:
		for i := range v.Len() {
			options(v.Index(i), visit)
		}
	case reflect.Struct:
		if v.CanAddr() {
			switch x := v.Addr().Interface().(type) {
			case *Property:
				visit(x.Key.Text, &x.Value.Text)
				return
			case *Set:
				visit(x.Key.Text, &x.Value.Text)
				return
			case *HintArg:
				if x.Value != nil {
					visit(x.Key.Text, &x.Value.Text)
				}
				return
			}
		}
		for i := range v.NumField() {
			options(v.Field(i), visit)
		}
	}
}
